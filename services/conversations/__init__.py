"""Conversations that last: their messages, branches, search, exports and imports, and the archivist of answers.

Nothing here generates or knows a web framework; `services/chat` knows nothing of it.
"""
