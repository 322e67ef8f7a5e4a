"""User accounts: names, look-alikes, listing, changing, importing.

It does not check passwords; that is `credentials/` and `login/`.
"""
