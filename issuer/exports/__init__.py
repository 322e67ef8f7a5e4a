"""What is published for others than our verifiers: status lists and security events.

It imports keys and storage.
"""
