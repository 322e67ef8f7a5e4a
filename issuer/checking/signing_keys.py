"""Checks of the signing keys, and of the keys that stored rows need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.errors import UnavailableError
from issuer.keys.check_values import WrongKeyError
from issuer.keys.encryption import decrypt_private_key
from issuer.keys.key_changes import MAX_AGE
from issuer.keys.store import PUBLISHED, KeyState
from issuer.settings.issuer_settings import IssuerSettings
from issuer.startup.key_checks import find_proved_keys, find_removed_keys
from issuer.storage.tables.keys import SigningKey
from shared.checking.findings import Findings

_RING: Final = "ISSUER_KEY_ENCRYPTION_KEYS"
_INTERVAL: Final = "ISSUER_KEY_ROTATION_INTERVAL"
_AHEAD: Final = "ISSUER_KEY_PUBLISH_AHEAD"
#: Seconds. One max-age for a copy that was fetched just before the key was there, and
#: one for a cache in between.
_LEAST_AHEAD: Final = 2 * MAX_AGE
#: Seconds after the time at which the running issuer should have changed a key.
_LATE: Final = 3_600


def check_publish_ahead(settings: IssuerSettings, findings: Findings) -> None:
    """Warn when a key may sign before every cache of the JWKS has it.

    A warning: our own verifiers report which keys they have, and are waited for.
    """
    ahead = settings.key_publish_ahead
    if ahead < _LEAST_AHEAD:
        findings.warn(
            "keys.publish_ahead",
            _AHEAD,
            f"a new key may sign after {ahead} s, and a reader of the JWKS may cache it "
            f"for {MAX_AGE} s: such a reader refuses good tokens until it asks again",
            f"write {_AHEAD}={_LEAST_AHEAD} or more, unless only verifiers of Gatehouse "
            "read the JWKS",
        )
    else:
        findings.ok("keys.publish_ahead", _AHEAD, f"a new key waits for {ahead} s")


async def check_signing_keys(
    db: AsyncSession, settings: IssuerSettings, findings: Findings, *, now: int
) -> None:
    """Check that one key signs and can be opened, and that the next comes in time.

    Args:
        db: a transaction.
        settings: the rings and the times of rotation.
        findings: gets what was found.
        now: Unix seconds.
    """
    query = select(SigningKey).where(SigningKey.state.in_(PUBLISHED))
    rows = (await db.scalars(query)).all()
    for row in rows:
        if row.private_encrypted is not None:
            _check_opening(row, settings, findings)
    active = [row for row in rows if row.state == KeyState.ACTIVE]
    if not active:
        findings.warn(
            "keys.active",
            "signing keys",
            f"none of {len(rows)} keys is active",
            "the next start of an issuer makes one; until then no token is minted",
        )
        return
    findings.ok(
        "keys.active", "signing keys", f"{active[0].kid} signs, {len(rows)} published"
    )
    _check_rotation(rows, active[0], settings, findings, now)


def _check_opening(
    row: SigningKey, settings: IssuerSettings, findings: Findings
) -> None:
    try:
        decrypt_private_key(
            row.private_encrypted or b"",
            kid=row.kid,
            kek_id=row.kek_id,
            key_ring=settings.key_encryption_keys,
        )
    except UnavailableError as error:
        findings.error(
            "keys.opened",
            _RING,
            error.detail or f"the {row.state} key {row.kid} does not open",
            f"put the key with id {row.kek_id} back into {_RING}",
        )
    else:
        findings.ok("keys.opened", _RING, f"the {row.state} key {row.kid} opens")


def _check_rotation(
    rows: Sequence[SigningKey],
    active: SigningKey,
    settings: IssuerSettings,
    findings: Findings,
    now: int,
) -> None:
    """Check that a running issuer has published and activated keys in time."""
    following = [row for row in rows if row.state == KeyState.NEXT]
    interval, ahead = settings.key_rotation_interval, settings.key_publish_ahead
    if following:
        age = now - min(row.created_at for row in following)
        if age > ahead + _LATE:
            findings.warn(
                "keys.rotation",
                _AHEAD,
                f"the next key is published for {age} s and does not sign yet",
                "see that an issuer runs, and which verifiers lack the key (docs/"
                "runbook.md)",
            )
            return
    elif interval:
        overdue = now - (active.activated_at or active.created_at) - interval
        if overdue > _LATE:
            findings.warn(
                "keys.rotation",
                _INTERVAL,
                f"the active key should have been replaced {overdue} s ago",
                "see that an issuer runs; it rotates by itself",
            )
            return
    findings.ok("keys.rotation", _INTERVAL, "no change of keys is overdue")


async def check_stored_keys(
    db: AsyncSession, settings: IssuerSettings, findings: Findings, *, now: int
) -> None:
    """Check that rows need no pepper, refresh key or encryption key that is not there.

    Args:
        db: a transaction.
        settings: the rings.
        findings: gets what was found.
        now: Unix seconds.
    """
    try:
        await find_proved_keys(db, settings, now=now)
    except WrongKeyError as error:
        for line in str(error).splitlines():
            name, _, rest = line.partition(": ")
            found, _, remedy = rest.partition(". ")
            findings.error(
                "keys.stored", name, found, remedy or "put the right one back"
            )
        return
    removed = await find_removed_keys(db, settings, now=now)
    for key in removed:
        missing = f"id {key.key_id}" if key.key_id else "a key"
        findings.warn(
            "keys.stored",
            key.setting,
            f"{missing} is missing, which {key.rows} {key.detail}",
            "put it back behind the others",
        )
    if not removed:
        findings.ok("keys.stored", "keys", "all keys that rows need are there")
