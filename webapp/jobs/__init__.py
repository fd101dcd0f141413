"""The job pages: cleanings and fine-tunings ordered, watched and downloaded in a browser.

Nothing here does a job's work, and nothing knows the chat.
"""
