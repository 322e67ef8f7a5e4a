"""`python -m issuer`: serves, or does one thing for the operator.

Settings come from the environment and `.env`. No secret is ever taken from the command
line, where every process list shows it.
"""

from __future__ import annotations

import sys

from shared import health
from shared.serving.signals import hold_reloads_when_serving

if __name__ == "__main__":
    hold_reloads_when_serving(sys.argv[1:])
if __name__ == "__main__" and sys.argv[1:2] == [health.NAME]:
    # Asked every few seconds, so before the imports below: they take a second.
    sys.exit(health.main("issuer", sys.argv[2:]))

import argparse
import asyncio
import getpass
import json
import secrets
from collections.abc import Awaitable, Callable
from textwrap import dedent
from typing import TYPE_CHECKING, Final, TypeAlias

from issuer import migrations
from issuer.acts import Caller
from issuer.clock import seconds
from issuer.commands import (
    audit_command,
    bulk_command,
    import_command,
    reencrypt_command,
)
from issuer.errors import (
    DatabaseTroubleError,
    InvalidRequestError,
    IssuerError,
    UnavailableError,
)
from issuer.feed.lease_watch import term
from issuer.keys.check_values import WrongKeyError
from issuer.settings.issuer_settings import (
    KEY_BYTES,
    PREFIX,
    IssuerSettings,
    SettingsError,
    load_settings,
)
from issuer.startup.key_checks import require_known_keys, require_right_keys
from issuer.storage.database_attempts import retry_conflicts
from issuer.storage.db import check_sqlite_version
from shared import base64url, configs
from shared.distribution import invoked_as, version_line
from shared.settings import describe

if TYPE_CHECKING:
    from issuer.composition import Issuer

_ACTOR: Final = "system"
_EPILOG: Final = dedent("""\
    The least that must be set (`generate-secrets` prints the last four):
      ISSUER_URL        your issuer's URL, the `iss` of every token
      ISSUER_AUDIENCE   the name of your API, the `aud` of every token
      ISSUER_FEED_TOKEN ISSUER_KEY_ENCRYPTION_KEYS ISSUER_PASSWORD_PEPPERS
      ISSUER_REFRESH_KEYS

    A first start:
      (umask 077; python -m issuer generate-secrets >> .env)   and add the two above
      python -m issuer migrate
      python -m issuer create-admin alice
      python -m issuer

    Every setting stands in .env.example, with unit and default; `configs` writes it out
    as env.example, with a systemd unit. A command ends with status 0 when it is done, 1 when it could not
    be done, 2 for bad settings or arguments.
    """)


class CommandError(Exception):
    """The command cannot be done; the message tells the operator why."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    options = _build_parser().parse_args(_attach_kid(words))
    if options.command == "generate-secrets":
        print("\n".join(make_secret_lines()))
        return 0
    if options.command == health.NAME:
        return health.run("issuer", is_ready_asked=options.ready)
    if options.command == configs.NAME:
        return configs.run("issuer", options.directory)
    try:
        settings = load_settings()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        _run(options, settings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
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


def _attach_kid(words: list[str]) -> list[str]:
    """Return the command's words with a key's id attached to its option.

    One id in 64 begins with `-`, and argparse takes what stands alone for an option.
    """
    if "--kid" not in words[:-1]:
        return words
    at = words.index("--kid")
    return [*words[:at], f"--kid={words[at + 1]}", *words[at + 2 :]]


def make_secret_lines() -> list[str]:
    """Return `.env` lines with fresh secrets for an issuer and its verifiers."""
    feed_token = secrets.token_urlsafe(32)
    rings = ("KEY_ENCRYPTION_KEYS", "PASSWORD_PEPPERS", "REFRESH_KEYS")
    keys = [
        f"{PREFIX}{name}=k1:{base64url.encode(secrets.token_bytes(KEY_BYTES))}"
        for name in rings
    ]
    return [
        f"{PREFIX}FEED_TOKEN={feed_token}",
        *keys,
        f"VERIFIER_FEED_TOKEN={feed_token}",
    ]


def _run(options: argparse.Namespace, settings: IssuerSettings) -> None:
    match options.command:
        case None | "serve":
            # The server's imports take a tenth of a second, which no command needs.
            from issuer import serve

            status = serve.run(settings)
            if status:
                raise SystemExit(status)
        case "settings":
            print("\n".join(describe(settings)))
        case "migrate":
            check_sqlite_version()
            # A migration cannot be taken back: not on another installation's database.
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
        case reencrypt_command.NAME:
            _run_composed(settings, lambda i: reencrypt_command.run(i, _ACTOR))
        case audit_command.NAME:
            _run_composed(settings, lambda i: _audit(i, options))
        case "new-epoch":
            _run_composed(settings, _begin_epoch)
        case "revoke":
            _run_composed(settings, lambda i: _revoke(i, options))
        case import_command.NAME:
            _run_composed(settings, lambda i: _import_users(i, options))
        case bulk_command.NAME:
            _run_composed(settings, lambda i: _revoke_many(i, options))


def _run_composed(
    settings: IssuerSettings, act: Callable[[Issuer], Awaitable[None]]
) -> None:
    # Counting is of no use to a command, but serving must not find it imported: there
    # the number of workers decides how it counts.
    from issuer.composition import compose

    # One that looks at everything may take its time.
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
        options.name, scopes, by=_ACTOR, caller=Caller()
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


async def _begin_epoch(issuer: Issuer) -> None:
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
    print(f"Revoked: position {position} of the feed.")


async def _import_users(issuer: Issuer, options: argparse.Namespace) -> None:
    try:
        if not await import_command.run(issuer, options, _ACTOR):
            raise CommandError("Some rows were refused.")
    except import_command.ImportCommandError as error:
        raise CommandError(str(error)) from None


async def _revoke_many(issuer: Issuer, options: argparse.Namespace) -> None:
    try:
        if not await bulk_command.run(issuer, options, _ACTOR):
            raise CommandError("Some rows were refused.")
    except bulk_command.BulkCommandError as error:
        raise CommandError(str(error)) from None


async def _audit(issuer: Issuer, options: argparse.Namespace) -> None:
    if not await audit_command.run(issuer, options, _ACTOR):
        raise CommandError("Find out who can write to the database.")


def _read_password(options: argparse.Namespace) -> str:
    """From a pipe its first line; from a terminal twice, unseen."""
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


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=invoked_as("issuer"),
        description="The pass office: logs people and services in, publishes keys and "
        "revocations. Serves when no command is given.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version_line("issuer"))
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("serve", help="serve (the default)")
    commands.add_parser(
        "migrate",
        help="bring the database up to date",
        description="Bring the database up to date. There is no way back: make a backup "
        "first. The version before a migration works on the newer schema.",
    )
    commands.add_parser(
        "generate-secrets", help="print .env lines with fresh secrets; needs no setting"
    )
    commands.add_parser("settings", help="print what is in force, without secrets")
    health.add_arguments(commands.add_parser(health.NAME, help=health.HELP))
    configs.add_parser(commands)
    _add_account_commands(commands)
    _add_key_commands(commands)
    import_command.add_parser(commands)
    bulk_command.add_parser(commands)
    return parser


_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add_account_commands(commands: _Commands) -> None:
    admin = commands.add_parser(
        "create-admin",
        help="make a user who may do everything",
        description="Makes a user with the role `admin` (scope gatehouse:admin). The "
        "password is asked for twice, or read from standard input.",
    )
    admin.add_argument("username", metavar="USERNAME")
    admin.add_argument(
        "--password-stdin",
        action="store_true",
        help="read the password's one line from standard input; so it is anyway when "
        "that is not a terminal",
    )
    client = commands.add_parser(
        "create-client",
        help="make a client and print its id and secret",
        description="Makes a client that may use the client_credentials grant. Prints "
        "CLIENT_ID=... and CLIENT_SECRET=..., this once.",
    )
    client.add_argument("name", metavar="NAME", help="for people to know it by")
    client.add_argument(
        "--scope",
        action="append",
        default=[],
        metavar="SCOPE",
        help="what it may ask for, one or several with blanks between; may be repeated. gatehouse:introspect and "
        "gatehouse:revoke let it ask about and revoke tokens of others",
    )
    client.add_argument("--json", action="store_true", help="print one JSON object")


def _add_key_commands(commands: _Commands) -> None:
    rotate = commands.add_parser(
        "rotate-keys",
        help="publish the next signing key; it takes over by itself",
        description="Publishes the next signing key. It signs once it has stood in the "
        "JWKS for ISSUER_KEY_PUBLISH_AHEAD seconds and every verifier that follows the "
        "feed has fetched it, which the running issuer sees to.",
    )
    rotate.add_argument(
        "--now",
        action="store_true",
        help="let it sign at once; verifiers refuse its tokens until they fetch it",
    )
    reencrypt_command.add_parser(commands)
    audit_command.add_parser(commands)
    revoke = commands.add_parser(
        "revoke",
        help="withdraw tokens: of a user, session, client or key, or a single one",
    )
    what = revoke.add_mutually_exclusive_group(required=True)
    commands.add_parser(
        "new-epoch",
        help="after a restore of a whole machine or directory: begin a new epoch",
        description="A restored database is found out by itself, except when all that "
        "could tell was restored with it: a whole machine, or a SQLite file with its "
        "-witness. Run this then, before the issuer serves. Every verifier takes the "
        "snapshot and keeps the revocations it had.",
    )
    what.add_argument(
        "--user", metavar="USERNAME", help="all sessions and personal keys of a user"
    )
    what.add_argument(
        "--sid",
        help="one session, one personal key by its id, or one grant of a client, known "
        "to this database or not",
    )
    what.add_argument("--jti", help="one access token, by its `jti` claim")
    what.add_argument("--client", metavar="CLIENT_ID", help="a client's own tokens")
    what.add_argument(
        "--kid",
        help="every token of a signing key, which leaves the JWKS; when it is the "
        "active one, the next takes over at once",
    )


if __name__ == "__main__":
    sys.exit(main())
