"""Model files: which names exist, where the weights are, whether a folder is whole, how a model is sampled.

Nothing here knows Redis.
"""
