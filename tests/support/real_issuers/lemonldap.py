"""A running portal of LemonLDAP::NG, which signs with RS256."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.processes import Process, ProcessFactory, free_port, is_listening
from tests.support.real_issuers.token_endpoint import (
    AUDIENCE,
    CLIENT_ID,
    CLIENT_SECRET,
    SCOPE,
    fetch_token,
)
from tests.support.requiring import give_up

#: One of the three users of the demonstration mode, whose passwords are their names.
USERNAME: Final = "rtyler"
ROLE: Final = "clerk"
_PORTAL: Final = Path("/usr/share/lemonldap-ng/portal/htdocs/index.psgi")
_PACKAGES: Final = "liblemonldap-ng-portal-perl libio-string-perl libstring-random-perl"
_FILES: Final = "Apache::Session::File"


class LemonLdap:
    """A running LemonLDAP::NG.

    Attributes:
        issuer: the `iss` of its tokens.
        process: the program itself.
    """

    def __init__(self, folder: Path, factory: ProcessFactory) -> None:
        """Start it. Where it is not installed the test is skipped; CI fails.

        Args:
            folder: for its files.
            factory: stops it when the tests are over.
        """
        plackup = shutil.which("plackup")
        if plackup is None or not _PORTAL.exists():
            give_up(f"LemonLDAP::NG is missing: apt-get install {_PACKAGES}")
        home, port = folder / "lemonldap", free_port()
        self.issuer = f"http://127.0.0.1:{port}"
        ini = _write_files(home, self.issuer)
        address = ("--host", "127.0.0.1", "--port", str(port))
        self.process: Process = factory.start(
            "lemonldap",
            (plackup, *address, "-E", "deployment", _PORTAL),
            env={"PATH": os.environ["PATH"], "LLNG_DEFAULTCONFFILE": str(ini)},
            cwd=home,
            ready=lambda: is_listening(port),
        )

    def client_token(self) -> str:
        """Return an access token of the client's own."""
        return self._fetch(grant_type="client_credentials", scope=SCOPE)

    def user_token(self) -> str:
        """Return an access token of a user, whose password the client has."""
        return self._fetch(
            grant_type="password",
            username=USERNAME,
            password=USERNAME,
            scope=f"openid {SCOPE}",
        )

    def _fetch(self, **form: str) -> str:
        return fetch_token(f"{self.issuer}/oauth2/token", **form)


def _write_files(home: Path, issuer: str) -> Path:
    """Write the configuration, and return the path of lemonldap-ng.ini."""
    for name in ("conf", "sessions/lock", "psessions/lock", "cache"):
        (home / name).mkdir(parents=True)
    configuration = _configuration(home, issuer) | _relying_party()
    (home / "conf" / "lmConf-1.json").write_text(json.dumps(configuration))
    ini = home / "lemonldap-ng.ini"
    ini.write_text(f"""[all]
logLevel = warn
logger = Lemonldap::NG::Common::Logger::Std
userLogger = Lemonldap::NG::Common::Logger::Std
[configuration]
type = File
dirName = {home}/conf
localStorage = Cache::FileCache
localStorageOptions = {{'cache_root' => '{home}/cache', 'namespace' => 'conf'}}
[portal]
staticPrefix = /static
templateDir = /usr/share/lemonldap-ng/portal/templates
languages = en
""")
    return ini


def _configuration(home: Path, issuer: str) -> dict[str, Any]:
    private, public = _make_key()
    return {
        "cfgNum": 1,
        "cfgDate": 1,
        "cfgVersion": "2.16.1",
        "portal": f"{issuer}/",
        "domain": "127.0.0.1",
        "securedCookie": 0,
        "key": "a key of one test",
        "authentication": "Demo",
        "userDB": "Same",
        "demoExportedVars": {"cn": "cn", "mail": "mail", "uid": "uid"},
        "locationRules": {},
        "exportedHeaders": {},
        "exportedVars": {},
        "macros": {"_whatToTrace": "lc($_user)"},
        "whatToTrace": "_whatToTrace",
        "groups": {ROLE: f'$uid eq "{USERNAME}"'},
        "globalStorage": _FILES,
        "globalStorageOptions": _session_folders(home / "sessions"),
        "persistentStorage": _FILES,
        "persistentStorageOptions": _session_folders(home / "psessions"),
        "localSessionStorage": "Cache::FileCache",
        "localSessionStorageOptions": {"cache_root": f"{home}/cache"},
        # The default one needs a library for images, though no page shows a captcha.
        "captcha": "::Plugins::Refresh",
        "captcha_mail_enabled": 0,
        "captcha_register_enabled": 0,
        "portalDisplayRegister": 0,
        "portalDisplayResetPassword": 0,
        "issuerDBOpenIDConnectActivation": 1,
        "oidcServiceMetaDataIssuer": issuer,
        "oidcServicePrivateKeySig": private,
        "oidcServicePublicKeySig": public,
        "oidcServiceKeyIdSig": "first",
    }


def _relying_party() -> dict[str, Any]:
    """Return the client's part: JWTs as access tokens, with the user's claims."""
    return {
        "oidcRPMetaDataOptions": {
            CLIENT_ID: {
                "oidcRPMetaDataOptionsClientID": CLIENT_ID,
                "oidcRPMetaDataOptionsClientSecret": CLIENT_SECRET,
                "oidcRPMetaDataOptionsAccessTokenJWT": 1,
                "oidcRPMetaDataOptionsAccessTokenClaims": 1,
                "oidcRPMetaDataOptionsAccessTokenSignAlg": "RS256",
                "oidcRPMetaDataOptionsIDTokenSignAlg": "RS256",
                "oidcRPMetaDataOptionsAccessTokenExpiration": 600,
                "oidcRPMetaDataOptionsAllowPasswordGrant": 1,
                "oidcRPMetaDataOptionsAllowClientCredentialsGrant": 1,
                "oidcRPMetaDataOptionsAdditionalAudiences": AUDIENCE,
            }
        },
        # As a list also when there is one group, or it would be text.
        "oidcRPMetaDataExportedVars": {
            CLIENT_ID: {"preferred_username": "uid", "roles": "groups;string;always"}
        },
        "oidcRPMetaDataOptionsExtraClaims": {
            CLIENT_ID: {SCOPE: "roles preferred_username"}
        },
    }


def _session_folders(folder: Path) -> dict[str, str]:
    return {
        "Directory": str(folder),
        "LockDirectory": str(folder / "lock"),
        "generateModule": ("Lemonldap::NG::Common::Apache::Session::Generate::SHA256"),
    }


def _make_key() -> tuple[str, str]:
    """Return a private and its public key, PEM."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public.decode()
