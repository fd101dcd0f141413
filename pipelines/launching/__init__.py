"""Starts and watches the training program, on this machine or through SkyPilot.

Nothing here imports `pipelines.training`: the program runs as a process of its own. So does SkyPilot, in an environment
of its own: only `sky_process.py` imports it, and nothing imports `sky_process.py`.
"""
