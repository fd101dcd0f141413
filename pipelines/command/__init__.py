"""The commands of `chatserver clean` that run a cleaning's code: `chatserver` starts `python -m pipelines.command`."""
