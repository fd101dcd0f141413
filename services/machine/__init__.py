"""This machine: child processes that end with their parent, calls and signals in threads, whole or absent files.

Nothing here knows Redis, a model or a request.
"""
