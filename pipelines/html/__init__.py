"""HTML answers to markdown: how to tell one, what to mend in it first, and the conversion itself.

Only assistant turns come here. Nothing in this folder knows a conversation, a recipe or a ledger.
"""
