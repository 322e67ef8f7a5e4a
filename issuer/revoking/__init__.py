"""Revoking tokens, keys and many things at once.

Ending sessions is in `sessions/`, publishing entries in `feed/`.
"""
