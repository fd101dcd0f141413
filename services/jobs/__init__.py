"""Jobs of cleaning and fine-tuning: their specs, their progress, and the messages that wake Celery for them.

Nothing here does a job's work: `pipelines` does.
"""
