"""Access tokens: minting, reading, and whether one still counts.

It imports keys, exports and the feed's tables; no session logic.
"""
