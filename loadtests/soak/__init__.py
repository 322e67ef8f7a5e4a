"""Watches for what grows while all programs run for a long time under load."""
