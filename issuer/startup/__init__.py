"""Checks before serving: keys and schema fit the database.

It may import every package below `composition`.
"""
