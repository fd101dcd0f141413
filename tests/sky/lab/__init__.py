"""A machine room on loopback: Slurm with eight GPUs that do not exist, sshd, and a SkyPilot API server of its own.

    python -m tests.sky.lab      # as root; prints the variables with which `sky` and our workers use it, until Ctrl-C

Used by `tests/sky/conftest.py`, and by people who want to look around in it. Needs no internet but PyPI: what SkyPilot
fetches elsewhere is answered from here. All that it makes is one folder, one unix user and processes on free ports of
127.0.0.1, and all of it goes when it ends.
"""
