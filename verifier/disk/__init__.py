"""The copy on disk, which a start without the issuer uses.

It imports `check/` for the form of keys and entries.
"""
