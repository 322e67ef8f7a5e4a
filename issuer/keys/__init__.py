"""Signing keys: storage, rotation, the JWKS.

Revoking a key is in `revoking/`.
"""
