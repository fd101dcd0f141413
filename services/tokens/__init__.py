"""Text ↔ token ids as a model means them: chat templates, tokenizers, token counts, which tokens are learnt.

Nothing here knows Redis, and nothing computes with a model.
"""
