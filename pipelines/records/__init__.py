"""Conversations during a cleaning, the ledger of what each step does with them, and statistics of a set of them.

Nothing here reads or writes a format of other programs.
"""
