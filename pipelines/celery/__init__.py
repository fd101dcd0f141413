"""The pipelines' Celery tasks: they bring every job to its end, whichever process dies meanwhile.

Nothing here cleans or trains: tasks call `cleaning` and `launching`.
"""
