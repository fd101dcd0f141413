"""Commands that run our programs on this machine: `chatserver up`, `worker`, `web` and `pipelines`."""
