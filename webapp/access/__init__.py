"""Who may use a route.

Nothing here knows what the route does.
"""
