"""`configs` lists the files that go with a program, or writes them out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from shared import configs
from shared.configs import ConfigsError, read_files, run, write_files

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("program", ["issuer", "verifier"])
def test_files_have_the_text_that_the_tests_run(program: str) -> None:
    files = read_files(program)
    assert files["env.example"] == (ROOT / ".env.example").read_text()
    unit = f"gatehouse-{program}.service"
    shipped = (ROOT / "deploy/systemd" / unit).read_text()
    place = "/opt/gatehouse/.venv/bin/python"
    assert place in shipped
    assert files[f"systemd/{unit}"] == shipped.replace(place, sys.executable)


def test_the_verifier_has_every_gateway_and_the_issuer_none() -> None:
    gateways = ROOT / "deploy/gateways"
    names = {
        f"gateways/{path.relative_to(gateways)}"
        for path in gateways.rglob("*")
        if path.is_file()
    }
    assert names
    assert names <= read_files("verifier").keys()
    assert not any(name.startswith("gateways") for name in read_files("issuer"))


def test_both_programs_have_the_same_rules_and_dashboard() -> None:
    """One Prometheus watches both: written to one folder, they do not differ."""
    issuer, verifier = (
        {
            name: text
            for name, text in read_files(program).items()
            if name.startswith(("grafana/", "prometheus/"))
        }
        for program in ("issuer", "verifier")
    )
    assert issuer == verifier
    assert {"grafana/gatehouse.json", "prometheus/prometheus.yml"} <= issuer.keys()


@pytest.mark.parametrize(
    ("python", "written"),
    [
        ("/srv/gate/bin/python3.11", "/srv/gate/bin/python3.11"),
        ("/srv/a b/bin/python", '"/srv/a b/bin/python"'),
        ("/srv/100%/bin/python", "/srv/100%%/bin/python"),
        ('/srv/"x\\/bin/python', '"/srv/\\"x\\\\/bin/python"'),
    ],
)
def test_a_unit_starts_the_python_that_writes_it(
    python: str, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", python)
    unit = read_files("verifier")["systemd/gatehouse-verifier.service"]
    assert f"\nExecStart={written} -m verifier\n" in unit


def test_names_are_listed_and_the_rest_goes_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("issuer", None) == 0
    shown = capsys.readouterr()
    names = shown.out.splitlines()
    assert names[-2:] == ["systemd/gatehouse-issuer.service", "env.example"]
    assert "prometheus/rules/alerts-issuer.yml" in names
    assert "configs DIRECTORY" in shown.err


def test_written_configs_may_be_written_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verifier", tmp_path / "new/out") == 0
    first = capsys.readouterr().out
    assert run("verifier", tmp_path / "new/out") == 0
    assert capsys.readouterr().out == first
    assert all(Path(line).is_file() for line in first.splitlines())


def test_a_changed_file_is_left_alone_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An operator's own changes survive an upgrade."""
    changed = tmp_path / "env.example"
    changed.write_text("mine\n")
    assert run("issuer", tmp_path) == 1
    assert f"{changed} is there already and differs" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == [changed]
    assert changed.read_text() == "mine\n"


def test_directory_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigsError, match="cannot be written"):
        write_files({"a/b": "text"}, tmp_path / "file")


def test_an_installation_without_configs_names_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image holds the packages and nothing beside them."""
    monkeypatch.setattr(configs, "_PACKAGED", tmp_path / "none")
    monkeypatch.setattr(configs, "_CHECKOUT", tmp_path)
    assert run("verifier", None) == 1
    assert "pip install gatehouse-auth" in capsys.readouterr().err


def test_packaged_files_come_before_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env.example").write_text("packaged\n")
    monkeypatch.setattr(configs, "_PACKAGED", tmp_path)
    assert read_files("issuer") == {"env.example": "packaged\n"}


def test_the_command_takes_a_directory_or_none() -> None:
    parser = argparse.ArgumentParser()
    configs.add_parser(parser.add_subparsers(dest="command"))
    assert parser.parse_args(["configs"]).directory is None
    assert parser.parse_args(["configs", "x"]).directory == Path("x")
