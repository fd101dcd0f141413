"""Which workers live, which trained models shall be served, and which models people may choose.

Nothing here looks into a request.
"""
