"""Gateways that check tokens by themselves: `python -m loadtests.bench_native`."""
