"""Everything about the signing keys, put together."""

from __future__ import annotations

from dataclasses import dataclass

from issuer.acts import AuditWriter
from issuer.clock import Clock
from issuer.keys.check_values import KeyProofs
from issuer.keys.follower_keys import FollowerKeyReports
from issuer.keys.key_changes import RotationLimits
from issuer.keys.key_list import KeyList
from issuer.keys.rotation import KeyRotation, OnLook
from issuer.keys.store import KeyStore
from issuer.settings.issuer_settings import IssuerSettings
from issuer.storage.db import Database


@dataclass(frozen=True, slots=True)
class KeyParts:
    """The parts; each tells in its own file what it is for."""

    store: KeyStore
    rotation: KeyRotation
    reports: FollowerKeyReports
    key_list: KeyList
    proofs: KeyProofs


def compose_keys(
    settings: IssuerSettings,
    database: Database,
    *,
    clock: Clock,
    audit: AuditWriter,
    on_look: OnLook,
) -> KeyParts:
    """Return the parts.

    Args:
        settings: as read at the start.
        database: where the keys are kept.
        clock: gives the time in milliseconds.
        audit: records each change of a key.
        on_look: told what the schedule finds.
    """
    store = KeyStore(
        database,
        settings.key_encryption_keys,
        rsa_bits=settings.rsa_bits,
        clock=clock,
    )
    limits = RotationLimits(settings.key_rotation_interval, settings.key_publish_ahead)
    rotation = KeyRotation(
        database, store, limits, clock=clock, audit=audit, on_look=on_look
    )
    return KeyParts(
        store,
        rotation,
        FollowerKeyReports(database),
        KeyList(database, clock=clock),
        KeyProofs(database, settings.password_peppers),
    )
