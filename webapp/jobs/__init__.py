"""The job pages: a browser orders and watches cleanings and fine-tunings, and downloads their results.

Nothing here does a job's work, and nothing here knows the chat.
"""
