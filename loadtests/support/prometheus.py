"""A real Prometheus and blackbox exporter on the shipped files.

It scrapes every second. What is shipped waits for minutes and looks back for days; a
test has seconds, so the `for` of each alert and the windows can be made shorter. The
addresses are the run's. All else is read from deploy/prometheus/.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from deploy.demo.addresses import HOST, Addresses
from loadtests.support.processes import ProcessFactory, free_port, wait_until
from loadtests.support.raw_http import send

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"

#: As often as the programs count anew.
_PACE = "1s"
#: What every window becomes: some scrapes, also where one is late.
_HURRIED = "4s"
_WINDOW = re.compile(r"\[\w+(:?)\]")


class Prometheus:
    """Scrapes issuer and verifier, and evaluates the shipped rules.

    Args:
        folder: for its files.
        factory: starts it.
        addresses: of Gatehouse's programs.
        programs: the paths of Prometheus and of the exporter.
        is_hurried: whether the rules wait for seconds only.
    """

    def __init__(
        self,
        folder: Path,
        factory: ProcessFactory,
        addresses: Addresses,
        programs: tuple[str, str],
        *,
        is_hurried: bool,
    ) -> None:
        self._port, exporter = free_port(), free_port()
        program, probes = programs
        command = [
            probes,
            f"--web.listen-address={HOST}:{exporter}",
            # Of Debian's package; `http_2xx` is in it.
            "--config.file=/etc/prometheus/blackbox.yml",
            # It ends a probe half a second before Prometheus' patience would end: here
            # at once.
            "--timeout-offset=0.1",
        ]
        factory.start("blackbox-exporter", command)
        shutil.copytree(SHIPPED / "rules", folder / "rules")
        if is_hurried:
            for path in (folder / "rules").iterdir():
                path.write_text(_hurry(path.read_text()))
        config = folder / "prometheus.yml"
        shipped = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
        config.write_text(yaml.safe_dump(_at(shipped, addresses, exporter)))
        factory.start(
            "prometheus",
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={HOST}:{self._port}",
            ],
            ready=lambda: send(self._port, "GET", "/-/ready").status == 200,
        )

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of the HTTP API.

        Raises:
            AssertionError: it was refused; with the answer.
        """
        answer = send(self._port, "GET", f"/api/v1/{path}?{urlencode(parameters)}")
        assert answer.status == 200, answer
        return answer.json()["data"]

    def firing(self) -> dict[str, Mapping[str, str]]:
        """Return the texts of the alerts that fire, by their names."""
        return {
            alert["labels"]["alertname"]: alert["annotations"]
            for alert in self.ask("alerts")["alerts"]
            if alert["state"] == "firing"
        }

    def await_firing(self, *names: str) -> None:
        """Return once each of these alerts has fired.

        Raises:
            NotInTimeError: with those that did not.
        """
        missing = {*names}

        def have_fired() -> bool:
            missing.difference_update(self.firing())
            return not missing

        self._await(have_fired, missing)

    def await_clear(self) -> None:
        """Return once no alert fires.

        Raises:
            NotInTimeError: with those that still do.
        """
        left: set[str] = set()

        def are_clear() -> bool:
            left.clear()
            left.update(self.firing())
            return not left

        self._await(are_clear, left)

    def await_scrapes(self, jobs: Iterable[str]) -> None:
        """Return once every target of these jobs has been scraped."""

        def are_up() -> bool:
            up = self.ask("query", query="up == 1")["result"]
            return {*jobs} <= {series["metric"]["job"] for series in up}

        self._await(are_up, {*jobs})

    def _await(self, condition: Any, about: set[str]) -> None:
        try:
            wait_until(condition)
        except AssertionError as error:
            raise AssertionError(f"{error}: {sorted(about)}") from None


def _hurry(text: str) -> str:
    """Return rules that hold for a second at most and look back for seconds."""
    text = re.sub(r"^( +for:) \w+$", r"\1 1s", text, flags=re.M)
    return _WINDOW.sub(rf"[{_HURRIED}\1]", text)


def _at(config: dict[str, Any], addresses: Addresses, exporter: int) -> dict[str, Any]:
    """Return the shipped config with the addresses and the pace of a test."""
    here = {
        "127.0.0.1:8100": f"{HOST}:{addresses.issuer_admin}",
        "127.0.0.1:9100": f"{HOST}:{addresses.verifier_admin}",
        "127.0.0.1:9115": f"{HOST}:{exporter}",
    }
    del config["alerting"]
    config["global"] |= {
        "scrape_interval": _PACE,
        "scrape_timeout": _PACE,
        "evaluation_interval": _PACE,
    }
    for job in config["scrape_configs"]:
        for group in job["static_configs"]:
            group["targets"] = [_move(target, here) for target in group["targets"]]
        for rule in job.get("relabel_configs", []):
            if "replacement" in rule:
                rule["replacement"] = _move(rule["replacement"], here)
    return config


def _move(text: str, here: Mapping[str, str]) -> str:
    for shipped, own in here.items():
        text = text.replace(shipped, own)
    return text
