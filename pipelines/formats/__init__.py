"""Readers and writers of training data. `read.read` and `write.Writer` are the way in; no step lives here."""
