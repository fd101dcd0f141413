"""Commands that order work of the pipelines and watch it: `chatserver clean`, `train` and `jobs`."""
