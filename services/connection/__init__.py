"""How a process reaches Redis: an address becomes a client, a cluster, a subscription or a server of our own.

Nothing here knows what a key means.
"""
