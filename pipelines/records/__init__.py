"""A conversation on its way through cleaning, what became of it, and what a set of them looks like.

Nothing here reads or writes a format of other programs.
"""
