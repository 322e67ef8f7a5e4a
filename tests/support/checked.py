"""The findings of `check`, run inside the test."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest


class Checked(NamedTuple):
    """What `check --json` printed.

    Attributes:
        status: of the exit.
        text: everything that was printed.
        findings: each with `level`, `check`, `concerns`, `found` and `remedy`.
    """

    status: int
    text: str
    findings: list[dict[str, Any]]

    def levels(self, check: str) -> list[str]:
        """Return the levels of the findings of one check."""
        return [f["level"] for f in self.findings if f["check"] == check]

    def bad(self) -> dict[str, str]:
        """Return what was found that is not `ok`, by check; each has a remedy."""
        bad = [f for f in self.findings if f["level"] != "ok"]
        assert all(f["remedy"] for f in bad), bad
        return {f["check"]: f"{f['concerns']}: {f['found']}" for f in bad}


class CheckDesk:
    """Runs `check` of one program with settings of the test's own."""

    def __init__(
        self,
        main: Callable[[list[str]], int],
        env: Mapping[str, str],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self._main = main
        self.env = dict(env)
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def check(self, *options: str, **changes: str) -> Checked:
        """Return the findings; `changes` are settings by their whole names."""
        status, text = self.run("check", "--json", *options, **changes)
        shown = json.loads(text)
        assert shown["status"] == status
        assert shown["form"] == 1
        return Checked(status, text, shown["findings"])

    def run(self, *words: str, **changes: str) -> tuple[int, str]:
        """Run a command; return its status and what it printed."""
        with self._monkeypatch.context() as patch:
            patch.setattr("os.environ", {**self.env, **changes})
            status = self._main([*words])
        return status, self._capsys.readouterr().out
