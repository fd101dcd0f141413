"""The arena's page and its HTTP API. What a battle, a vote and a score are is in `services/arena`.

Nothing here sends a browser what would tell the models before the vote.
"""
