"""The OpenAI API under `/v1`: one blueprint per file. They read OpenAI's bodies and frame answers as OpenAI does.

`services/chat` follows the answers; nothing here reads a journal. Who asks is decided in `webapp/access`.
"""
