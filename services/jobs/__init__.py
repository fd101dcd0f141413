"""Jobs of cleaning and fine-tuning: what is ordered, how it goes, and how Celery is woken for it.

Nothing here does a job's work: that is `pipelines`.
"""
