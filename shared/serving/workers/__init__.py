"""Owns the workers of a program: who starts them, replaces them and shares sockets.

It may import the rest of `serving`.
"""
