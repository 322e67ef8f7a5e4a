"""The revocation feed: entries, followers, leases and confirmation.

It imports storage; who revokes is not its concern.
"""
