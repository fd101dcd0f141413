"""Text ↔ token ids of a model: chat templates, tokenizers, token counts, what fits a context, supervised tokens.

Nothing here knows Redis, and nothing computes with a model.
"""
