"""The HTTP API of conversations, and the socket's `ask`. What they mean is in `services/conversations`."""
