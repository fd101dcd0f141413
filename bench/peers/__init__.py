"""Our whole path against other servers of language models, on this machine, in turns: `python -m bench.peers`.

Here live what each server needs (`environments.py`, `weights.py`), how it is started (`servers.py`), what it is asked
(`prompts.py`, `scenarios.py`, `client.py`), and what is made of it (`machine.py`, `figures.py`). Nothing here knows a
server beyond its command line and `/v1/chat/completions`.
"""
