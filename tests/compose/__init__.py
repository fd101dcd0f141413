"""The compose file as it is, on a real engine: `make test-compose`. See run.sh and engine.sh."""
