"""The nginx config that ingress-nginx makes of the annotations in our Ingress.

The controller is only published as an image. What it writes for these annotations is
rebuilt here from its template (1.15.0, rootfs/etc/nginx/template/nginx.tmpl), as far as
it concerns the check: without the Lua parts, which choose the application's pod.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from deploy.demo.addresses import HOST, Addresses
from deploy.gateway_programs.program import CONFIGS

INGRESS = CONFIGS / "kubernetes" / "ingress-nginx.yaml"
_PREFIX = "nginx.ingress.kubernetes.io/"
_VERIFIER = "gatehouse-verifier.gatehouse.svc.cluster.local:9000"


def read_annotations() -> dict[str, str]:
    """Return the annotations by their names without the prefix."""
    found = re.findall(rf'^    {_PREFIX}(\S+): "(.*)"$', INGRESS.read_text(), re.M)
    return dict(found)


def read_check_headers() -> dict[str, str]:
    """Return the data of the ConfigMap that `auth-proxy-set-headers` names."""
    _, _, data = INGRESS.read_text().partition("\ndata:\n")
    return dict(re.findall(r'^  ([\w-]+): "(.*)"$', data, re.M))


def write_config(
    folder: Path, addresses: Addresses, annotations: Mapping[str, str]
) -> Path:
    """Write the whole config, and return its path."""
    server = "\n".join(
        [*_check(addresses, annotations), *_site(addresses, annotations)]
    )
    # As root, it would become another user, who may not open the test's folder.
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "\n".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(f"""{user}
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    {temporary}
    underscores_in_headers off;
    large_client_header_buffers 4 8k;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    server {{
        listen {HOST}:{addresses.gateway};
        {server}
    }}
}}
""")
    return config


def _check(addresses: Addresses, annotations: Mapping[str, str]) -> list[str]:
    url = annotations["auth-url"].replace(_VERIFIER, f"{HOST}:{addresses.verifier}")
    method = annotations.get("auth-method")
    asked = [
        f"proxy_method {method};",
        "proxy_set_header X-Original-URI $request_uri;",
        "proxy_set_header X-Scheme $scheme;",
    ]
    return [
        "location = /_external-auth {",
        "internal;",
        "proxy_pass_request_body off;",
        'proxy_set_header Content-Length "";',
        'proxy_set_header X-Forwarded-Proto "";',
        "proxy_set_header X-Request-ID $request_id;",
        *(asked if method else []),
        "proxy_set_header Host gatehouse-verifier.gatehouse.svc.cluster.local;",
        "proxy_set_header X-Original-URL $scheme://$http_host$request_uri;",
        "proxy_set_header X-Original-Method $request_method;",
        'proxy_set_header X-Sent-From "nginx-ingress-controller";',
        "proxy_set_header X-Real-IP $remote_addr;",
        "proxy_set_header X-Forwarded-For $remote_addr;",
        "proxy_set_header X-Auth-Request-Redirect $request_uri;",
        *_buffers(annotations),
        "proxy_pass_request_headers on;",
        "client_max_body_size 1m;",
        *(
            f'proxy_set_header "{name}" "{value}";'
            for name, value in read_check_headers().items()
        ),
        "proxy_http_version 1.1;",
        f'set $target "{url}";',
        "proxy_pass $target;",
        "}",
    ]


def _site(addresses: Addresses, annotations: Mapping[str, str]) -> list[str]:
    names = annotations["auth-response-headers"].split(",")
    identity = [
        line
        for place, name in enumerate(names)
        for line in (
            f"auth_request_set $authHeader{place} "
            f"$upstream_http_{name.lower().replace('-', '_')};",
            f"proxy_set_header '{name}' $authHeader{place};",
        )
    ]
    host = annotations.get("upstream-vhost", "$http_host")
    connection = annotations.get("connection-proxy-header", "$connection_upgrade")
    return [
        "location / {",
        "auth_request /_external-auth;",
        *identity,
        "client_max_body_size 1m;",
        f'proxy_set_header Host "{host}";',
        "proxy_set_header Upgrade $http_upgrade;",
        f"proxy_set_header Connection {connection};",
        "proxy_set_header X-Request-ID $request_id;",
        "proxy_set_header X-Real-IP $remote_addr;",
        "proxy_set_header X-Forwarded-For $remote_addr;",
        "proxy_set_header X-Forwarded-Host $http_host;",
        "proxy_set_header X-Forwarded-Port $server_port;",
        "proxy_set_header X-Forwarded-Proto $scheme;",
        "proxy_set_header X-Forwarded-Scheme $scheme;",
        "proxy_set_header X-Scheme $scheme;",
        "proxy_set_header X-Original-Forwarded-For $http_x_forwarded_for;",
        "proxy_set_header X-Original-Forwarded-Host $http_x_forwarded_host;",
        'proxy_set_header Proxy "";',
        "proxy_connect_timeout 5s;",
        *_buffers(annotations),
        "proxy_http_version 1.1;",
        f"proxy_pass http://{HOST}:{addresses.app};",
        "}",
    ]


def _buffers(annotations: Mapping[str, str]) -> list[str]:
    size = annotations.get("proxy-buffer-size", "4k")
    return [
        "proxy_buffering off;",
        f"proxy_buffer_size {size};",
        f"proxy_buffers 4 {size};",
    ]
