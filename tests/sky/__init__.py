"""Fine-tuning on a real SkyPilot API server over a real one-node Slurm on loopback. Run by `make test-sky`, as root.

Not part of a plain test run: `--sky` asks for it. What SkyPilot is told and what its answers mean is tested without
any of this in `tests/pipelines/training/`.
"""
