"""The database: how it is reached, one transaction at a time, and how its schema gets from one version to the next.

Nothing here knows what a table means; each room above keeps its own tables.
"""
