"""Celery pipelines: data cleaning, batches of questions, fine-tuning and its dispatch to SkyPilot clusters.

May import `services` only. Importing this package loads neither torch nor Celery's worker.
"""
