"""Real programs for benchmarks and tests: start, ask over HTTP, stop.

It imports pytest nowhere, so that the benchmarks need no test packages. The tests'
own support, `tests/support/`, builds on it.
"""
