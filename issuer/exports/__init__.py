"""Status lists and security events, for other readers than our verifiers.

It imports keys and storage.
"""
