"""OAuth clients: their records, their authentication, the grants and `/oauth2/*`.

Personal keys have their own package.
"""
