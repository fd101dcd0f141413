"""This machine: processes that end with us, calls that nobody waits for, files that are whole or absent.

Nothing here knows Redis, a model or a request.
"""
