"""What `chatserver doctor` looks at: one module per subject, each check a small function that yields findings.

    findings.py     what a check says            examination.py  which checks there are, and their bound in time
    settings.py     the environment              host.py         Python, packages, open files, disk, state folder
    redis_access.py is Redis there, and for whom redis_server.py how it is set, and how it is
    models.py       the model that a worker here would load, and what it takes of memory
    gpu.py          the driver, torch and flash-attn
    queues.py       models, workers, dead letters, as Redis knows them
    web.py          the port and the page        pipelines.py    the beat, Celery's workers and the jobs
    cloud.py        what SkyPilot says

A check changes nothing, takes what it judges as plain values, and imports what may be missing inside itself. Nothing
here prints; nothing here imports torch, SkyPilot or a folder of ours beside `services`.
"""
