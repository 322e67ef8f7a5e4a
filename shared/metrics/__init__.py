"""Owns the numbers that both programs show to Prometheus, also across workers.

Only `prometheus` imports prometheus_client. It may import `log`.
"""
