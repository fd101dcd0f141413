"""Readers of the files that chat programs export: a module a program, with its `FORMAT`. None opens a file."""
