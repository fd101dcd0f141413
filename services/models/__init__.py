"""Model files: which names exist, where the weights lie, whether a folder is whole.

Nothing here knows Redis.
"""
