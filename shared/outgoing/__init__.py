"""Connections that both programs open.

Owns the authorities that TLS is checked against, kept connections that follow a name,
bounded bodies, and the words for failures. It imports httpx and `shared.log`, and reads
no settings.
"""
