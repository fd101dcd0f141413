"""One cleaning run: its units of work, its folder, its report.

Nothing here knows Celery or Redis. `datatrove_blocks.py` alone knows another engine, an extra.
"""
