"""Readers of the shapes of public datasets: a module a shape, with its `FORMAT` or `FORMATS`. None opens a file."""
