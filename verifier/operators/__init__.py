"""The operators' port: metrics, health, status, explain.

It reads the other packages and changes nothing.
"""
