"""Fetches keys and feed in the background, and starts from the disk copy.

It passes keys and entries to the trust in `check/`; no request waits for it.
"""
