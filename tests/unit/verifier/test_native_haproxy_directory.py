"""The directory that HAProxy reads: keys, maps and its configuration."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from tests.support.haproxy_sites import TERMS
from tests.support.tokens import TestKey, signing_key
from verifier.check.trust import key_set
from verifier.native.haproxy.directory import HaproxyDirectory
from verifier.native.terms import InexpressibleError


def keys_of(*names: str) -> list[Any]:
    return list(key_set(signing_key(name).jwk for name in names).keys.values())


def test_directory_lets_a_worker_start_closed(tmp_path: Path) -> None:
    directory = HaproxyDirectory(tmp_path / "d")
    directory.prepare(keys_of("first"), {"default": TERMS})
    for path in directory.maps:
        assert path.read_bytes() == b""
    for path in (tmp_path / "d").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o750 if path.is_dir() else 0o640)
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750
    text = (tmp_path / "d/gatehouse.cfg").read_text()
    assert f"setenv GATEHOUSE_NATIVE {directory.mark}" in text
    (key,) = keys_of("first")
    assert f"jwt_verify(RS256,{directory.key_path(key)})" in text
    assert directory.key_path(key).read_bytes().startswith(b"-----BEGIN PUBLIC KEY")


def test_keys_of_before_stay_while_none_is_known(tmp_path: Path) -> None:
    first = HaproxyDirectory(tmp_path / "d")
    first.prepare(keys_of("first"), {"default": TERMS})
    second = HaproxyDirectory(tmp_path / "d")
    second.prepare([], {"default": TERMS})
    assert second.mark == first.mark
    assert not second.update(keys_of("first"), {"default": TERMS})
    # What a crash has left: a file that is not listed.
    (tmp_path / "d/keys/0.pem").write_bytes(b"")
    third = HaproxyDirectory(tmp_path / "d")
    third.prepare(keys_of("second"), {"default": TERMS})
    assert third.mark != first.mark
    names = [path.name for path in (tmp_path / "d/keys").iterdir()]
    assert names == [third.key_path(keys_of("second")[0]).name]


def test_start_with_fewer_keys_than_haproxy_runs_with_needs_no_reload(
    tmp_path: Path,
) -> None:
    first = HaproxyDirectory(tmp_path / "d")
    first.prepare(keys_of("first", "second"), {"default": TERMS})
    second = HaproxyDirectory(tmp_path / "d")
    second.prepare(keys_of("second"), {"default": TERMS})
    assert second.mark == first.mark
    # With other rules a reload is needed anyway.
    terms = {"default": TERMS._replace(required_scopes=("a",))}
    assert second.update(keys_of("second"), terms)
    (key,) = keys_of("second")
    files = [path.name for path in (tmp_path / "d/keys").iterdir()]
    assert files == [second.key_path(key).name]


def test_new_key_or_terms_need_a_reload_and_fewer_keys_do_not(tmp_path: Path) -> None:
    directory = HaproxyDirectory(tmp_path / "d")
    directory.prepare(keys_of("first", "second"), {"default": TERMS})
    assert not directory.update(keys_of("second"), {"default": TERMS})
    rules = directory.rules
    assert directory.update(keys_of("third"), {"default": TERMS})
    assert directory.rules == rules
    other = TERMS._replace(required_scopes=("orders:write",))
    assert directory.update(keys_of("third"), {"default": other})
    assert directory.rules != rules
    assert directory.has_our_rules(f"{rules}.any")
    assert not directory.has_present_rules(f"{rules}.any")
    assert directory.has_present_rules(directory.mark)
    assert not directory.has_our_rules("")


def test_directory_stays_whole_when_haproxy_cannot_check_a_policy(
    tmp_path: Path,
) -> None:
    directory = HaproxyDirectory(tmp_path / "d")
    directory.prepare(keys_of("first"), {"default": TERMS})
    before = (tmp_path / "d/gatehouse.cfg").read_bytes()
    other = TERMS._replace(client_ids=("é",))
    with pytest.raises(InexpressibleError):
        directory.update(keys_of("second"), {"default": other})
    assert (tmp_path / "d/gatehouse.cfg").read_bytes() == before
    assert len(list((tmp_path / "d/keys").iterdir())) == 1
    assert not directory.update(keys_of("first"), {"default": TERMS})


def test_key_whose_signature_the_rules_cannot_read_is_left_out(tmp_path: Path) -> None:
    directory = HaproxyDirectory(tmp_path / "d")
    odd = list(key_set([TestKey(2_056).jwk]).keys.values())
    directory.prepare(odd, {"default": TERMS})
    assert list((tmp_path / "d/keys").iterdir()) == []


@pytest.mark.parametrize("name", ["a b", "a;b", "a'b", "a\nb", "a#b", "ä"])
def test_directory_that_a_configuration_cannot_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="HAProxy needs a path"):
        HaproxyDirectory(Path("/x") / name)
