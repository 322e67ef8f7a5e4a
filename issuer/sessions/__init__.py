"""Sessions, refresh families, logout and the list of a user's sessions.

It writes entries through `feed/` and mints through `tokens/`.
"""
