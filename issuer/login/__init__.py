"""Logging in: throttling of attempts, the second step, and what a login leaves behind.

It imports accounts, credentials, hashing and sessions.
"""
