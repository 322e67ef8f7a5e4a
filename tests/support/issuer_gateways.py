"""Gateways before two issuers, which pass a request on to the other where that is
safe.
"""

from __future__ import annotations

from pathlib import Path

from deploy.gateway_programs import registry

#: Those with a config here.
NAMES = ("nginx", "envoy")

_NGINX = """\
daemon off;
worker_processes 1;
error_log stderr warn;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    upstream issuer {{
        server 127.0.0.1:{first} max_fails=0;
        server 127.0.0.1:{second} max_fails=0;
        keepalive 16;
        # Below the issuers' ISSUER_DRAIN_IDLE.
        keepalive_timeout 1s;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://issuer;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream error timeout;
            proxy_next_upstream_tries 2;
        }}
    }}
}}
"""

#: Once, to the other issuer.
_ONCE = """\
num_retries: 1,
                    host_selection_retry_max_attempts: 8,
                    retry_back_off: { base_interval: 0.005s, max_interval: 0.025s },
                    retry_host_predicate: [{
                      name: envoy.retry_host_predicates.previous_hosts,
                      typed_config: { "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate }
                    }]"""
#: A request that changes something is sent again only if none of it was sent.
_ENVOY = """\
static_resources:
  listeners:
  - name: gateway
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: gateway
          # Says why, when a request fails.
          access_log:
          - name: envoy.access_loggers.stderr
            filter:
              status_code_filter:
                comparison: {{ op: GE, value: {{ default_value: 500, runtime_key: unused }} }}
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog
              log_format:
                text_format_source:
                  inline_string: "failed: %START_TIME% %REQ(:METHOD)% %UPSTREAM_HOST% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %DURATION%\n"
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - name: issuer
              domains: ["*"]
              routes:
              - match:
                  prefix: /
                  headers:
                  - {{ name: ":method", string_match: {{ exact: GET }} }}
                route:
                  cluster: issuer
                  retry_policy: {{ retry_on: "connect-failure,refused-stream,reset", {once} }}
              - match: {{ prefix: / }}
                route:
                  cluster: issuer
                  retry_policy: {{ retry_on: "connect-failure,refused-stream", {once} }}
  clusters:
  - name: issuer
    connect_timeout: 1s
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http_protocol_options: {{}} }}
        # Below the issuers' ISSUER_DRAIN_IDLE.
        common_http_protocol_options: {{ idle_timeout: 1s }}
    # Envoy's own limit is three at a time.
    circuit_breakers: {{ thresholds: [{{ max_retries: 1024 }}] }}
    load_assignment:
      cluster_name: issuer
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {first} }} }} }}
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {second} }} }} }}
"""


def prepare(
    name: str, folder: Path, *, port: int, issuers: tuple[int, int]
) -> tuple[str, ...]:
    """Write the config of this gateway into `folder`; return the command that runs
    it.
    """
    binary = registry.find_binary(name)
    assert binary is not None, f"{name} is not installed"
    first, second = issuers
    config = folder / f"{name}.conf"
    config.write_text(
        {"nginx": _NGINX, "envoy": _ENVOY}[name].format(
            folder=folder, first=first, second=second, port=port, once=_ONCE
        )
    )
    if name == "nginx":
        return (str(binary), "-e", "stderr", "-c", str(config))
    config = config.rename(folder / "envoy.yaml")
    options = ("--disable-hot-restart", "--concurrency", "2", "--log-level", "warning")
    return (str(binary), *options, "-c", str(config))
