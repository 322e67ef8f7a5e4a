"""Owns the operators' port: health, readiness, metrics.

It may import the rest of `http`.
"""
