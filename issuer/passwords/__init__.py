"""Changing and resetting passwords.

Proof of a password is in `credentials/`, hashing in `hashing/`.
"""
