"""Model files: which names exist, where the weights are, whether a folder is whole, what an adapter is put on, how a
model is sampled.

Nothing here knows Redis.
"""
