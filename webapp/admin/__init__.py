"""The admin page: who serves, what waits and why, and what an administrator may change.

One file for each subject of the page. Nothing here decides who is an administrator (`webapp/access` does), and nothing
keeps a state of its own: every number comes from Redis, the database or the disk.
"""
