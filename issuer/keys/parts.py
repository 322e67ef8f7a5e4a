"""Composes the signing keys."""

from dataclasses import dataclass

from issuer.clock import seconds
from issuer.foundation import BackgroundTask, Foundation, Package
from issuer.keys import jwks_routes
from issuer.keys.check_values import KeyProofs
from issuer.keys.follower_keys import FollowerKeyReports
from issuer.keys.key_changes import KeyRotationTimes
from issuer.keys.key_list import KeyList
from issuer.keys.rotation import KeyRotation
from issuer.keys.store import KeyStore


@dataclass(frozen=True, slots=True)
class KeysParts(Package):
    """The parts of the signing keys."""

    store: KeyStore
    rotation: KeyRotation
    reports: FollowerKeyReports
    key_list: KeyList
    proofs: KeyProofs


def compose(base: Foundation) -> KeysParts:
    """Return the parts."""
    settings, database, clock = base.settings, base.database, base.clock
    store = KeyStore(
        database,
        settings.key_encryption_keys,
        rsa_bits=settings.rsa_bits,
        clock=clock,
    )
    limits = KeyRotationTimes(
        settings.key_rotation_interval, settings.key_publish_ahead
    )
    on_look = base.metrics.signing_keys
    rotation = KeyRotation(
        database, store, limits, clock=clock, audit=base.audit, on_look=on_look
    )
    reports, key_list = FollowerKeyReports(database), KeyList(database, clock=clock)
    proofs = KeyProofs(database, settings.password_peppers)

    async def write_proofs() -> None:
        await proofs.write(seconds(clock))

    return KeysParts(
        store,
        rotation,
        reports,
        key_list,
        proofs,
        hot_routers=(jwks_routes.router,),
        provides=(store, reports, key_list),
        tasks=(
            BackgroundTask(rotation.keep_schedule, every=10),
            BackgroundTask(write_proofs, every=1),
            BackgroundTask(reports.write, every=1),
        ),
    )
