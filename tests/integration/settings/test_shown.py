"""Settings in force are shown without secrets (R35)."""

from __future__ import annotations

from tests.support.programs import HUSH, Desk


def test_r35_settings_in_force_are_shown_without_secrets(desk: Desk) -> None:
    env = desk.program.env(FEED_TOKEN=HUSH)
    if desk.program.prefix == "ISSUER_":
        endpoint = '{"name":"a","url":"https://a.test/?key=hush","audience":"a",'
        env |= {
            "ISSUER_DATABASE_URL": "postgresql+asyncpg://me:hush@db.test/x",
            "ISSUER_CAEP_ENDPOINTS": f'[{endpoint}"token":"{HUSH}"}}]',
        }
    shown = desk.show(env)
    assert shown.status == 0, shown
    assert "hush" not in shown.out
    prefix = desk.program.prefix
    assert shown.values[f"{prefix}FEED_TOKEN"] == "(set)"
    assert shown.values[f"{prefix}WORKERS"] == "1"
    for text in shown.values.values():
        assert "Secret" not in text
        assert text not in {"True", "False", "None"}
