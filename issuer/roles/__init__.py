"""Roles and the rule that the last administrator stays.

It imports sessions, tokens and the feed: a role that shrinks revokes.
"""
