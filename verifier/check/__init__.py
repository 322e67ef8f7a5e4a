"""One check: bytes, trust, policy and time in, an answer out.

Pure, except that the gate writes a log line; compiled by mypyc.
"""
