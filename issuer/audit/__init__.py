"""The audit log: events, the hash chain, seals, tallies, retention.

Every package writes to it through `acts.AuditWriter`.
"""
