"""What is recorded about each request: its counts, its line in a log, its span.

None has a path or a query as the client wrote it, a header, or a body: they can hold
tokens, names and addresses (R35). Line and span are off by default.
"""
