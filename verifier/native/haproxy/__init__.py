"""Writes keys and revocations into HAProxy, which checks tokens with `jwt_verify`.

Its rules are generated for each policy, and its maps are changed over the master's
command line interface.
"""
