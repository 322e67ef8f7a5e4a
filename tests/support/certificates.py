"""A certificate authority made for one test, and what it signs."""

from __future__ import annotations

import datetime
from ipaddress import ip_address
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


class Pem(NamedTuple):
    """A certificate and its key."""

    certificate: bytes
    key: bytes


class Authority:
    """Signs certificates that are good from yesterday to tomorrow."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        made = self._build(self._name, self._key, is_authority=True)
        self.certificate = made.public_bytes(Encoding.PEM)

    def sign(self, common_name: str, *names: str) -> Pem:
        """Return a certificate.

        Args:
            common_name: of a client: the user that it stands for.
            names: host names and addresses of a server.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._build(_name(common_name), key, names=names)
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
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
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
