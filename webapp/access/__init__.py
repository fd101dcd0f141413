"""Who may use a route, and the form of what it is sent.

Nothing here knows what the route does.
"""
