"""The pages of accounts: signing in and out, signing up, one's own account. They need no script.

Nothing here decides who may use a route (`webapp/access`), and nothing here is served where nobody signs in.
"""
