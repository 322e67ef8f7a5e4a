"""The gRPC port: Envoy's ext_authz over gRPC, by the same gate (decision 0031).

Owns the messages, the server of one worker and its bounds. Only `server` and `probe`
import grpcio; `stubs` is generated (`make stubs`).
"""
