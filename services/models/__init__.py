"""Model files: which names exist, where the weights are, whether a folder is whole.

Nothing here knows Redis.
"""
