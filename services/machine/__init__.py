"""This machine: child processes that end with their parent, calls in threads, files that are whole or absent.

Nothing here knows Redis, a model or a request.
"""
