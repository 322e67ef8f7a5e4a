"""The commands that need the database, and serving."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from issuer import migrations
from issuer.acts import Caller
from issuer.clock import seconds
from issuer.commands.errors import CommandError
from issuer.errors import (
    DatabaseTroubleError,
    InvalidRequestError,
    IssuerError,
    UnavailableError,
)
from issuer.keys.check_values import WrongKeyError
from issuer.settings.issuer_settings import IssuerSettings
from issuer.startup.key_checks import require_known_keys, require_right_keys
from issuer.storage.database_attempts import retry_conflicts
from issuer.storage.sqlite_engine import check_sqlite_version

if TYPE_CHECKING:
    from issuer.composition import Issuer

_ACTOR: Final = "system"


def run(options: argparse.Namespace, settings: IssuerSettings) -> int:
    """Run a command and return the exit status.

    Raises:
        SettingsError: naming the setting, when the program cannot listen.
    """
    try:
        _run(options, settings)
    except (CommandError, migrations.SchemaBehindError, WrongKeyError) as error:
        print(error, file=sys.stderr)
        return 1
    except InvalidRequestError as error:
        for problem in error.problems:
            print(f"{problem.field}: {problem.rule}", file=sys.stderr)
        return 1
    except IssuerError as error:
        print(_explain(error), file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace, settings: IssuerSettings) -> None:
    match options.command:
        case None | "serve":
            # The server's imports take a tenth of a second; commands do not need them.
            from issuer import serve

            status = serve.run(settings)
            if status:
                raise SystemExit(status)
        case "migrate":
            check_sqlite_version()
            # A migration cannot be undone: not on another installation's database.
            asyncio.run(require_known_keys(settings))
            migrations.upgrade(settings.database_url)
            print("The database is up to date.")
        case "create-admin":
            password = _read_password(options)
            _run_composed(settings, lambda i: _create_admin(i, options, password))
        case "create-client":
            _run_composed(settings, lambda i: _create_client(i, options))
        case "rotate-keys":
            _run_composed(settings, lambda i: _rotate_keys(i, options))
        case "reencrypt-keys":
            _run_composed(settings, _reencrypt_keys)
        case "audit":
            _run_composed(settings, lambda i: _audit(i, options))
        case "new-epoch":
            _run_composed(settings, _begin_epoch)
        case "revoke":
            _run_composed(settings, lambda i: _revoke(i, options))
        case "import-users":
            _run_composed(settings, lambda i: _import_users(i, options))
        case "revoke-many":
            _run_composed(settings, lambda i: _revoke_many(i, options))


def _run_composed(
    settings: IssuerSettings, act: Callable[[Issuer], Awaitable[None]]
) -> None:
    # Imported here: before serving, the metrics must not be imported, because the
    # number of workers decides how they count.
    from issuer.composition import compose

    # A command that reads everything has no time limit.
    settings = settings.model_copy(update={"database_statement_timeout": 0.0})

    async def run() -> None:
        issuer = compose(settings)
        try:
            await migrations.require_current_schema(issuer.base.database)
            now = seconds(issuer.base.clock)
            await require_right_keys(issuer.base.database, settings, now=now)
            await retry_conflicts(lambda: act(issuer))
        finally:
            await issuer.close()

    asyncio.run(run())


async def _create_admin(
    issuer: Issuer, options: argparse.Namespace, password: str
) -> None:
    user = await issuer.accounts.users.create_admin(
        options.username, password, caller=Caller()
    )
    print(f"The administrator {user.username} is there: {user.id}")


async def _create_client(issuer: Issuer, options: argparse.Namespace) -> None:
    scopes = [word for text in options.scope for word in text.split()]
    client = await issuer.clients.clients.create(
        options.name, scopes, actor=_ACTOR, caller=Caller()
    )
    if options.json:
        shown = {"client_id": client.client_id, "client_secret": client.secret}
        print(json.dumps(shown))
        return
    print(f"CLIENT_ID={client.client_id}")
    print(f"CLIENT_SECRET={client.secret}")
    print("The secret is shown this once.", file=sys.stderr)


async def _rotate_keys(issuer: Issuer, options: argparse.Namespace) -> None:
    change = await issuer.keys.rotation.rotate(actor=_ACTOR, is_immediate=options.now)
    if change.activate:
        print("The next key signs now; the one before is published a while longer.")
    elif change.publish:
        print(
            f"The next key is published. It signs in "
            f"{issuer.base.settings.key_publish_ahead} s, once every verifier has it."
        )
    else:
        print("The next key is published already and waits for its time.")


async def _reencrypt_keys(issuer: Issuer) -> None:
    from issuer.commands import reencrypt_command

    await reencrypt_command.run(issuer, _ACTOR)


async def _begin_epoch(issuer: Issuer) -> None:
    from issuer.feed.lease_watch import term

    epoch = await issuer.feed.continuity.begin_epoch()
    print(f"The feed counts in a new epoch: {epoch}")
    print(
        "Every verifier takes the snapshot and keeps what it had. For the next "
        f"{term(issuer.base.settings.max_follower_staleness):.0f} s no revocation is "
        "confirmed.",
        file=sys.stderr,
    )


async def _revoke(issuer: Issuer, options: argparse.Namespace) -> None:
    caller = Caller()
    if options.user is not None:
        user = await issuer.accounts.users.find(options.user)
        position = await issuer.sessions.logout.log_out_everywhere(
            user.id, caller, actor=_ACTOR
        )
    elif options.sid is not None:
        position = await issuer.sessions.logout.end_any(
            options.sid, caller, actor=_ACTOR
        )
    elif options.jti is not None:
        position = await issuer.revoking.revocations.revoke_token(
            options.jti, caller, actor=_ACTOR
        )
    elif options.client is not None:
        position = await issuer.clients.clients.revoke_all(
            options.client, caller, actor=_ACTOR
        )
    else:
        position = await issuer.revoking.revocations.revoke_key(
            options.kid, caller, actor=_ACTOR
        )
    print(f"Revoked: position {position.seq} of the feed.")


async def _import_users(issuer: Issuer, options: argparse.Namespace) -> None:
    from issuer.commands import import_command

    if not await import_command.run(issuer, options, _ACTOR):
        raise CommandError("Some rows were refused.")


async def _revoke_many(issuer: Issuer, options: argparse.Namespace) -> None:
    from issuer.commands import bulk_command

    if not await bulk_command.run(issuer, options, _ACTOR):
        raise CommandError("Some rows were refused.")


async def _audit(issuer: Issuer, options: argparse.Namespace) -> None:
    from issuer.commands import audit_command

    if not await audit_command.run(issuer, options, _ACTOR):
        raise CommandError("Find out who can write to the database.")


def _read_password(options: argparse.Namespace) -> str:
    """Read the first line of a pipe, or ask twice on a terminal without echo."""
    if options.password_stdin or not sys.stdin.isatty():
        password = sys.stdin.readline().rstrip("\r\n")
        if not password:
            raise CommandError("No password on standard input.")
        return password
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise CommandError("The two passwords differ.")
    return password


def _explain(error: IssuerError) -> str:
    if isinstance(error, DatabaseTroubleError) and error.detail:
        return error.detail
    if isinstance(error, UnavailableError) and error.detail:
        return error.detail
    return error.description
