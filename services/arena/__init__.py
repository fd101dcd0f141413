"""The arena: one question to two models, people's votes, and the leaderboard from them.

Nothing here knows a web framework; the two answers are messages of a conversation.
"""
