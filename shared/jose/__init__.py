"""Owns JOSE for both programs: base64url, strict JSON, keys, algorithms, compact JWS.

It is pure, and imports nothing of ours but `claims`.
"""
