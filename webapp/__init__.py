"""The Flask-SocketIO front: pages, sockets, HTTP API.

It holds no state that Redis lacks, so a web process may die or start at any time. Nothing here may import `workers` or
`pipelines`, or load torch or tokenizers: the journal brings finished text.
"""
