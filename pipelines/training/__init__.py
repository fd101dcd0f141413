"""Fine-tuning: the program that trains (`python -m pipelines.training`), and where it is sent to run.

Importing this package loads no torch. Only the module `trainer` does, which the program imports once it trains.
"""
