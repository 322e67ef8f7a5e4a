"""Draws the shipped dashboard from a real run, where no Grafana can be installed."""
