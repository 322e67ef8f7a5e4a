"""Password hashes: ours and imported ones, their cost, and the pool that computes them.

It knows no account.
"""
