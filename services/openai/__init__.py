"""OpenAI's bodies and objects: what programs ask in, as our requests, and what they read back.

`webapp/api` serves them over HTTP, `pipelines/batches` from files. Nothing here knows Flask or follows an answer.
"""
