"""What a text consists of: prose, words, tokens.

Nothing here knows conversations.
"""
