"""A certificate authority made for one test, and its certificates."""

from __future__ import annotations

import datetime
import ssl
import tempfile
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

#: Days from today that a certificate is valid from and until.
ALIVE = (-1, 1)
EXPIRED = (-30, -1)
NOT_YET = (1, 30)


class Pem(NamedTuple):
    """A certificate and its key."""

    certificate: bytes
    key: bytes


class Authority:
    """Signs certificates, by default good from yesterday to tomorrow.

    Attributes:
        certificate: its own, in PEM; `der` is the same.
    """

    def __init__(self, name: str = "Test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        made = self._build(self._name, self._key, is_authority=True)
        self.certificate = made.public_bytes(Encoding.PEM)
        self.der = made.public_bytes(Encoding.DER)

    def serve(self, *names: str, days: tuple[int, int] = ALIVE) -> ssl.SSLContext:
        """Return the TLS side of a server of these names or addresses."""
        pem = self.sign(names[0], *names, days=days)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "server.pem")
            path.write_bytes(pem.certificate + pem.key)
            context.load_cert_chain(path)
        return context

    def sign(self, common_name: str, *names: str, days: tuple[int, int] = ALIVE) -> Pem:
        """Return a certificate.

        Args:
            common_name: of a client: the user that it stands for.
            names: host names and addresses of a server.
            days: from today that it is valid from and until.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._build(_name(common_name), key, names=names, days=days)
        return Pem(
            made.public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )

    def _build(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        names: tuple[str, ...] = (),
        is_authority: bool = False,
        days: tuple[int, int] = ALIVE,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        begin, end = (now + datetime.timedelta(days=day) for day in days)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        )
        if names:
            shown = [_general_name(name) for name in names]
            builder = builder.add_extension(
                x509.SubjectAlternativeName(shown), critical=False
            )
        return builder.sign(self._key, SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
