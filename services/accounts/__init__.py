"""Who may ask, and as which user: accounts, sessions, invitations, API keys. Nothing here knows a conversation or a web
framework.
"""
