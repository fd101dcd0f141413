"""Commands that ask a model: `chatserver chat` and `send`."""
