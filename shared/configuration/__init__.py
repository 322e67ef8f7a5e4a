"""Owns how both programs read settings, secrets, addresses and files, also again.

It imports no server and no network.
"""
