"""Writes into Envoy: an xDS server for its filters, and the proof that they are there.

It owns the filters' contents. It needs the extra `native`.
"""
