"""Who may ask, and as which user: API keys. Nothing here knows a conversation or a web framework."""
