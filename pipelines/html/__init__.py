"""Converts HTML answers to markdown: detects them, repairs them first, then converts them.

The step `html_to_markdown` passes only assistant turns. Nothing in this folder knows a conversation, a recipe or a
ledger.
"""
