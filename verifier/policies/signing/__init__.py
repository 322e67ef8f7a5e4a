"""Owns tokens that are made for one run of a command, and the keys that sign them.

No verifier trusts these keys. It may import `check`.
"""
