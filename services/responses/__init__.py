"""Responses that can be asked for again: what is kept of each beside its answer, and the conversation it continues.

This room knows the queue and the journal (`services/chat`). It knows neither HTTP nor the words of OpenAI's API.
"""
