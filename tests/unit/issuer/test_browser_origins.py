"""Origins are listed exactly as browsers send them, or the start is refused (R37)."""

from __future__ import annotations

import pytest

from issuer.settings.browser_origins import read_origins
from issuer.settings.issuer_settings import SettingsError, load_settings

EXACT = [
    "https://app.example.com",
    "https://app.example.com:8443",
    "https://xn--bcher-kva.example",
    "https://a_b.example",
    "https://192.0.2.7",
    "https://[2001:db8::7]:8443",
    "http://localhost:3000",
    "http://127.0.0.1:5173",
    "http://[::1]:3000",
    "http://localhost",
]


@pytest.mark.parametrize("origin", EXACT)
def test_an_origin_as_a_browser_sends_it_is_kept(origin: str) -> None:
    assert read_origins(origin) == (origin,)


def test_several_are_separated_by_commas() -> None:
    assert read_origins(" , ".join([*EXACT, EXACT[0], ""])) == tuple(EXACT)
    assert read_origins("") == ()


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("*", "wildcard"),
        ("https://*.example.com", "wildcard"),
        ("https://*", "wildcard"),
        ("null", "null"),
        ("https://app.example.com/", "no slash"),
        ("https://app.example.com/app", "no path"),
        ("https://app.example.com?x", "as a browser sends it"),
        ("https://app.example.com#x", "as a browser sends it"),
        ("https://user:secret@app.example.com", "as a browser sends it"),
        ("https://App.example.com", "lower case"),
        ("HTTPS://app.example.com", "lower case"),
        ("https://bücher.example", "as a browser sends it"),
        ("https://app.example.com:443", "leave out :443"),
        ("https://a..com", "none that a browser sends"),
        ("https://.", "none that a browser sends"),
        ("https://127.1", "none that a browser sends"),
        ("https://0x7f.0.0.1", "none that a browser sends"),
        ("https://a.0x7f", "none that a browser sends"),
        ("https://256.1.1.1", "none that a browser sends"),
        ("http://localhost:80", "leave out :80"),
        ("https://app.example.com:0", "as a browser sends it"),
        ("https://app.example.com:08443", "as a browser sends it"),
        ("https://app.example.com:70000", "65535"),
        ("https://app.example.com:", "as a browser sends it"),
        ("https://[2001:DB8::7]", "as a browser sends it"),
        ("https://[2001:db8:0::7]", "shortest form"),
        ("https://[::::]", "shortest form"),
        ("http://app.example.com", "unencrypted"),
        ("http://192.168.1.7:3000", "unencrypted"),
        ("http://127.0.0.2", "unencrypted"),
        ("app.example.com", "as a browser sends it"),
        ("//app.example.com", "as a browser sends it"),
        ("ftp://app.example.com", "as a browser sends it"),
        ("https://app.example.com https://b.example", "as a browser sends it"),
        ("https://app.example.com\n", None),
        ("https://", "as a browser sends it"),
        ("https://app.example.com;https://b.example", "as a browser sends it"),
    ],
)
def test_any_other_form_is_refused_with_its_reason(
    entry: str, reason: str | None
) -> None:
    if reason is None:  # blanks around an entry are dropped, line ends as well
        assert read_origins(entry) == (entry.strip(),)
        return
    with pytest.raises(ValueError, match=r"^entry 2: ") as refusal:
        read_origins(f"https://first.example,{entry}")
    assert reason in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_a_wrong_origin_stops_the_start_and_names_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ISSUER_CORS_ORIGINS", "https://a.example,*")
    with pytest.raises(SettingsError, match="ISSUER_CORS_ORIGINS: entry 2: a wildcard"):
        load_settings(None)
