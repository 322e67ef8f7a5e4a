"""Proof of who somebody is: passwords, codes, one-time tokens, and the throttle.

It decides nothing about sessions; the packages above it do.
"""
