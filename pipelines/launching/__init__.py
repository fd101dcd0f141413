"""Starts and watches the training program, on this machine or through SkyPilot.

Nothing here imports `pipelines.training`: the program runs as a process of its own.
"""
