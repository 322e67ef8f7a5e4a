"""Personal keys: long-lived strings of a user that scripts exchange for access tokens.

It imports credentials, sessions and tokens; only clients is above it.
"""
