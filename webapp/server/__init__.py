"""The layer between the network and the application: an HTTP server, a WebSocket, limits on what clients send.

Nothing here imports `services`: bytes have no meaning yet.
"""
