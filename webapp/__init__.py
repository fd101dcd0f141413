"""The Flask-SocketIO front: pages, sockets, HTTP API.

It holds no state that Redis lacks, so any web process may die or be added at any time. Nothing here may import
`workers` or `pipelines`, nor load torch or tokenizers: text arrives finished through the journal.
"""
