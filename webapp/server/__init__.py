"""What stands between the network and the application: an HTTP server, a WebSocket, bounds on what strangers send.

Nothing here imports `services`: bytes have no meaning yet.
"""
