"""The parts of a text: prose, words, tokens.

Nothing here knows conversations.
"""
