"""The chat page, its sockets, and the relay that sends them answers.

Nothing here knows jobs.
"""
