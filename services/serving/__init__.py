"""Which workers live, which trained models shall be served, and what is offered to people.

Nothing here looks into a request.
"""
