"""`check` asks a real Envoy and a real HAProxy what `native` would meet there."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from shared.checking.findings import Finding, Findings, Level
from tests.support.installed_gateways import require
from tests.support.native_envoy import SCOPED, native_envoy
from tests.support.native_haproxy import NativeHaproxy
from tests.support.processes import ProcessFactory
from tests.support.tokens import AUDIENCE, ISSUER, signing_key
from verifier.checking.native import list_native_checks
from verifier.native.haproxy.directory import CONFIGURATION
from verifier.native.terms import NativeTerms
from verifier.settings import VerifierSettings

pytestmark = pytest.mark.processes


def look(word: str, **settings: str) -> list[Finding]:
    """Return what is found under one word by a `check` that asks other programs."""
    made = VerifierSettings(
        issuer_url=ISSUER, audience=AUDIENCE, feed_token="f" * 32, **settings
    )
    found = Findings()
    for check in list_native_checks(made, is_offline=False):
        check.run(found)
    return [finding for finding in found if finding.check == word]


def test_policy_that_envoy_asks_for_is_missed_in_the_list() -> None:
    with native_envoy() as envoy:
        admin = f"unix:{envoy.folder}/envoy-admin.sock"
        shown, lacking = look("native.envoy", envoy_admin=admin)
        assert shown.level is Level.OK
        assert (lacking.level, lacking.concerns) == (
            Level.ERROR,
            "VERIFIER_NATIVE_POLICIES",
        )
        assert lacking.found == f"lacks what Envoy asks: {SCOPED}"
        names = f"default,{SCOPED}"
        (shown,) = look("native.envoy", envoy_admin=admin, native_policies=names)
        assert shown.level is Level.OK


def test_haproxy_that_was_started_with_another_directory_is_found() -> None:
    require("haproxy")
    plain = NativeTerms("default", ISSUER, AUDIENCE, 5, 3_600, (), (), (), (), ())
    # The path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory() as name:
        folder, factory = Path(name), ProcessFactory(Path(name))
        site = NativeHaproxy(folder, factory, {"default": plain}, [signing_key()])
        other = folder / "other"
        other.mkdir()
        try:
            with site.application():
                site.start()
                site.settle()
                text = (folder / "d" / CONFIGURATION).read_text()
                (other / CONFIGURATION).write_text(text.replace("NATIVE ", "NATIVE x"))
                master = f"unix:{site.socket}"
                said = {
                    place: look(
                        "native.haproxy",
                        haproxy_master=master,
                        haproxy_dir=str(folder / place),
                    )[-1]
                    for place in ("d", "other")
                }
                site.writing.stop()
        finally:
            factory.stop_all()

    assert said["d"].level is Level.OK
    assert said["d"].found == f"HAProxy runs with {folder}/d/{CONFIGURATION}"
    assert (said["other"].level, said["other"].concerns) == (
        Level.WARNING,
        "VERIFIER_HAPROXY_DIR",
    )
