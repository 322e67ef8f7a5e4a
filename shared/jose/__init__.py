"""Owns base64url, JWKs and strict JSON members: one spelling for both programs.

It imports nothing of ours but `claims`.
"""
