"""What people thought of answers as training data, and the fine-tuning that learns from it.

Nothing here judges: a record says what somebody said, with a thumb, a vote or a better answer of their own.
"""
