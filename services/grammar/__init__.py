"""What an answer must look like, as a grammar: JSON schemas and patterns, their notations for engines, and what is left
of a grammar behind a text. Knows no engine, no model and no Redis.
"""
