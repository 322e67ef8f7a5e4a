"""Reads the files again while a worker of the issuer serves (decision 0026).

Call it from the worker's event loop; it installs no signal handler. Only settings that
need not change in all processes at once are applied: keys and the database need a
restart.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Final

from issuer.exports.parts import ExportsParts
from issuer.feed.feed_credential import FeedCredential
from issuer.foundation import Foundation
from issuer.settings.issuer_settings import IssuerSettings
from shared.configuration.reloading import (
    NEEDS_RESTART,
    OneAtATime,
    Outcome,
    reread,
    take_live,
)
from shared.configuration.settings import SettingsError, load_again

_LOG = logging.getLogger(__name__)
_ENDPOINTS: Final = "ISSUER_CAEP_ENDPOINTS"
_LIVE: Final = frozenset({"feed_token", "caep_endpoints"})


def renewed(settings: IssuerSettings) -> IssuerSettings:
    """Return the settings with changes from their files; never raises.

    For a worker that starts long after the settings were read, and for the master
    process at a reload.
    """
    outcome = Outcome()
    try:
        found = reread(partial(load_again, settings), settings.env_file)
        settings = settings.model_copy(
            update=take_live(settings, found, _LIVE, outcome)
        )
    except SettingsError as error:
        outcome.keep(error)
    except Exception as error:
        outcome.kept["settings"] = f"cannot be read: {type(error).__name__}"
    if outcome.word != "unchanged":
        outcome.write(_LOG)
    return settings


class Reloader:
    """Reads settings and secrets of one worker again.

    Args:
        base: gives the settings, as read at the start, and counts the outcomes.
        credential: gets a new feed token.
        exports: get new endpoints, and read the authorities again.
    """

    def __init__(
        self,
        base: Foundation,
        credential: FeedCredential,
        exports: ExportsParts,
    ) -> None:
        self._settings = base.settings
        self._credential = credential
        self._outbox = exports.event_outbox
        self._delivery = exports.event_delivery
        self._count = base.metrics.reload
        #: Reads the files again and returns when they are in force; never raises.
        self.reload = OneAtATime(self._reload)

    async def _reload(self) -> None:
        outcome = Outcome()
        try:
            await self._renew(outcome)
        except SettingsError as error:
            outcome.keep(error)
        except Exception as error:
            # A fault of ours: the present settings stay.
            _LOG.exception("reload.crashed")
            outcome.kept["settings"] = f"cannot be read: {type(error).__name__}"
        self._count(outcome.word)
        outcome.write(_LOG)

    async def _renew(self, outcome: Outcome) -> None:
        if self._delivery is not None:
            is_new = await self._delivery.renew_authorities()
            if is_new:
                outcome.changed.append("ISSUER_CA_FILE")
        settings = self._settings
        found = await asyncio.to_thread(
            reread, partial(load_again, settings), settings.env_file
        )
        taken = dict(take_live(self._settings, found, _LIVE, outcome))
        if "caep_endpoints" in taken and not self._take_endpoints(found):
            del taken["caep_endpoints"]
            outcome.changed.remove(_ENDPOINTS)
            outcome.kept[_ENDPOINTS] = NEEDS_RESTART
        if "feed_token" in taken:
            self._credential.replace(found.feed_token.get_secret_value())
        self._settings = self._settings.model_copy(update=taken)

    def _take_endpoints(self, found: IssuerSettings) -> bool:
        """Use other endpoints; return whether this is possible without a restart."""
        if self._outbox is None or self._delivery is None:
            return False
        self._outbox.replace_endpoints(found.caep_endpoints)
        self._delivery.replace_endpoints(found.caep_endpoints)
        return True
