"""What `check` of both programs has in common: findings, and checks of a machine.

A check looks and changes nothing. It reports what it found, and never raises for it.
"""
