"""Probes a live gateway for known holes: `python -m verifier doctor`.

The scenarios are those that the tests send through every shipped config.
"""
