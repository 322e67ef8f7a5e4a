"""What is recorded about each request: its line in the access log, and its span.

Neither has a path or a query as the client wrote it, a header, or a body: they can
hold tokens, names and addresses (R35). Both are off by default.
"""
