"""Reads policies, CA file and secrets again while the verifier serves.

A bad file leaves the last good one in force.
"""
