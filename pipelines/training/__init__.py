"""Fine-tuning: the program that trains (`python -m pipelines.training`).

Importing this package loads no torch. Only the module `trainer` does, which the program imports when it trains.
"""
