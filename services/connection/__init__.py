"""Connections to Redis: clients of a server or a cluster, subscriptions, and the embedded server.

Nothing here knows what a key means.
"""
