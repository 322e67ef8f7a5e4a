"""Writes keys and revocations into gateways that check tokens by themselves.

It owns what such a gateway is sent, and what is known to be in force in it. It may
import `sync`, `disk` and `check`, and nothing that serves checks.
"""
