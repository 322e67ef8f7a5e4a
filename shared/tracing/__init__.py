"""What joins the logs and traces of several programs: ids of requests, and spans.

Spans are exported with OpenTelemetry, an extra (decision 0032). Only
`shared.tracing.exporting` imports it, and only when the environment asks for it.
"""
