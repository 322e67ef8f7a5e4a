"""All tables, one file per noun.

They import nothing of ours but column types.
"""
