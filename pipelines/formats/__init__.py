"""Readers and writers of training data. `read.read` and `write.Writer` are the way in; no step lives here.

`exports/` and `datasets/` turn other programs' records into plain ones; `foreign.py` knows them all.
"""
