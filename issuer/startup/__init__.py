"""What is checked before anything is served: keys and schema fit the database.

It may import every package below `composition`.
"""
