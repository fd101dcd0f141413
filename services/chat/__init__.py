"""One request from its submission to its end: the queue, the journal, and the followers of an answer.

This room knows no accounts, no stored conversations and no model files. A user is an opaque name.
"""
