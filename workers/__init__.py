"""One GPU (or CPU) process = one engine = one consumer of one model's queue.

Engines know neither Redis nor messages; the worker loop knows no tensors. Only this folder and the training program may
load torch. Nothing here may import `webapp` or `pipelines`.
"""
