"""How fast a revocation is everywhere: `python -m loadtests.bench_revocation`."""
