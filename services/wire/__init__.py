"""The wire: every key and channel, every message, and the parser of untrusted JSON.

docs/protocol.md explains the wire to others. Nothing here opens a connection.
"""
