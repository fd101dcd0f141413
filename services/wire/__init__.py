"""The wire: every key and channel, every message, and how untrusted JSON becomes one.

docs/protocol.md explains the wire to others. Nothing here opens a connection.
"""
