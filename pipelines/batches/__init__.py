"""One batch: its lines, what they ask, the window of those that are asked now, and the files with the answers.

Nothing here knows Celery or jobs: `pipelines/celery/batch_tasks.py` calls it.
"""
