"""What `check` looks at for the issuer: files, ports, the database and its keys.

A check writes nothing, and makes neither a database nor a key.
"""
