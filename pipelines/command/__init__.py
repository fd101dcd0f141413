"""`chatserver clean`: what runs in this process. The `chatserver` command becomes `python -m pipelines.command`."""
