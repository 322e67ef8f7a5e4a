"""The command line of the verifier.

Only `__main__` imports it.
"""
