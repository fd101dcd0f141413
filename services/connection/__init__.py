"""Connections to Redis: clients of a server or a cluster, subscriptions, the embedded server, the loader of Lua files.

Nothing here knows what a key means.
"""
