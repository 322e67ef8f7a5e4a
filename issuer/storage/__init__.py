"""The database: connections, retries, refusals, limits; `tables/` has every table.

It imports settings and errors only.
"""
