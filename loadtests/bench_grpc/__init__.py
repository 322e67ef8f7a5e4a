"""The cost of a gRPC check: `python -m loadtests.bench_grpc` (decision 0031)."""
