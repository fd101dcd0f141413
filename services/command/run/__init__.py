"""Commands that run ChatServer's programs on this machine: `chatserver up`, `worker`, `web` and `pipelines`."""
