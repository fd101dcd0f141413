"""The checks of `chatserver doctor`: one module for each subject. A check is a small function that yields findings.

    findings.py     what a check says            examination.py  which checks there are, and their time limit
    settings.py     the environment              host.py         Python, packages, open files, disk, state folder
    redis_access.py access to Redis              redis_server.py settings and state of Redis
    models.py       the model that a worker here would load, and what it takes of memory
    gpu.py          the driver, torch and flash-attn
    queues.py       models, workers, dead letters, as Redis knows them
    web.py          the port and the page        pipelines.py    the beat, Celery's workers and the jobs
    cloud.py        what SkyPilot says           accounts.py     who must sign in, and who may invite

A check changes nothing. It gets plain values, and imports a library that may be missing inside its function. Nothing
here prints, and nothing here imports torch, SkyPilot, or a folder of this project other than `services`.
"""
