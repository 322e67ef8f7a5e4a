"""The real Prometheus in a hurry. Without it a test is skipped, and in CI it fails."""

from __future__ import annotations

from pathlib import Path

from deploy.demo.addresses import Addresses
from loadtests.support.prometheus import Prometheus as PrometheusOfRuns
from tests.support.monitoring import require_program
from tests.support.processes import ProcessFactory


class Prometheus(PrometheusOfRuns):
    """Scrapes issuer and verifier, and evaluates the shipped rules within seconds.

    Args:
        folder: for its files.
        factory: starts it.
        addresses: of the programs.
    """

    def __init__(
        self, folder: Path, factory: ProcessFactory, addresses: Addresses
    ) -> None:
        exporter = "prometheus-blackbox-exporter"
        programs = (
            require_program("prometheus", "prometheus"),
            require_program(exporter, exporter),
        )
        super().__init__(folder, factory, addresses, programs, is_hurried=True)
