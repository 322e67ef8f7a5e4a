"""Owns the policy file: reading it, and what people ask about it before it is used.

It may import `check`, which decides by the policies.
"""
