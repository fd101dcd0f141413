"""One request from its submission to its end: the queue, the journal, and whoever follows an answer.

To this room a user is an opaque name: it knows no accounts, no stored conversations and no model files.
"""
