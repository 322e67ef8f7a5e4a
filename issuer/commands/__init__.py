"""The command line: `main.py` parses it, each other file is one command.

It composes an issuer and calls its packages; only `__main__` imports it.
"""
