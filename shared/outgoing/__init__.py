"""Connections that both programs open: where to, trusted by what, bounded how.

Owns the authorities TLS is checked against, kept connections that follow a name,
bounded bodies, and the words for what went wrong. Imports httpx; no settings, no other
package of ours but `shared.log`.
"""
