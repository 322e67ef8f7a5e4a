"""Wrong values for members of a token, as JSON texts."""

from __future__ import annotations

import json

from tests.support.clock import FakeClock
from tests.support.tokens import AUDIENCE, ISSUER

NOW = FakeClock().now()

DEEP = "[" * 40 + "]" * 40


def _texts(line: str) -> tuple[str, ...]:
    """Return the texts between the bars."""
    later = str(NOW + 600)
    for name, value in (("LATER", later), ("ISS", ISSUER), ("AUD", AUDIENCE)):
        line = line.replace(f"<{name}>", value)
    return tuple(line.split(" | "))


def _digits(zero: int) -> str:
    """Return a later date as text in the digits that begin at this code point."""
    return json.dumps("".join(chr(zero + int(digit)) for digit in str(NOW + 600)))


#: Anything, by type; among it texts that only some parsers take for JSON.
VALUES = {
    "booleans": ("true", "false"),
    "null": ("null",),
    "integers": tuple(
        map(str, (0, 1, -1, NOW, NOW + 600, 2**31, 2**53 + 1, 2**63, 2**64, -(2**70)))
    ),
    "huge": ("9" * 400, "9" * 4_000, "1" + "0" * 308, "-" + "9" * 400),
    "floats": _texts("1.5 | <LATER>.5 | <LATER>.0 | 1.8e9 | 1e300 | -0.0"),
    "too-large": _texts("1e400 | -1e400 | 1E+309"),
    "not-numbers": _texts(
        "NaN | Infinity | -Infinity | nan | 0x10 | +1 | 01 | 1. | .5"
    ),
    "digits": (
        *_texts('"<LATER>" | " <LATER> " | "1_900000000" | "0" | "1e9"'),
        *map(_digits, (0x660, 0xFF10)),
    ),
    "strings": (*_texts('"" | " " | "x" | "<ISS>" | "<AUD>"'), '"' + "x" * 257 + '"'),
    "unseen": (
        *_texts(r'"a\u0000b" | "a\r\nX-Auth-Subject: b" | "a\u202eb" | "a\u2028b"'),
        *_texts(r'"\ud800" | "\udc00\ud800"'),
        '"\ud800"',
        '"a\nb"',
    ),
    "text": _texts(r'"\ud83d\ude00" | "é" | "日本" | "%41,b"'),
    "lists": (
        *_texts('[] | ["<AUD>"] | ["<AUD>","other"] | ["other","<AUD>"] | [1]'),
        *_texts('["<AUD>",1] | ["<AUD>",null] | ["<AUD>",""] | [["<AUD>"]]'),
    ),
    "objects": _texts('{} | {"a":1} | {"<AUD>":true} | {"a":1,"a":2}'),
    "deep": (DEEP, '{"a":' * 33 + "1" + "}" * 33),
}

HEADER_VALUES = {
    "alg": (
        *_texts('"none" | "None" | "NONE" | "nOnE" | "HS256" | "HS512" | "RS384"'),
        *_texts('"RS512" | "PS256" | "ES256" | "EdDSA" | "rs256" | "Rs256" | " RS256"'),
        *_texts(r'"RS256 " | "RS256\u0000" | "" | "RSA-OAEP" | "dir" | "\u0052S256"'),
        *_texts(r'["RS256"] | {"RS256":1} | null | 256 | true | "\uff32\uff33256"'),
    ),
    "typ": (
        *_texts('"JWT" | "jwt" | "at" | "at+JWT " | "logout+jwt" | "dpop+jwt" | ""'),
        *_texts('"id+jwt" | "application/jwt" | "application/application/at+jwt"'),
        *_texts(r'"text/at+jwt" | "at+jwt; charset=utf-8" | "at+jwt\n" | "/at+jwt"'),
        *_texts(r'"at+jwt\u0000" | ["at+jwt"] | null | 1 | true | {"at+jwt":1}'),
    ),
    "kid": (
        *_texts('"" | "other" | "../../../etc/passwd" | "\' or \'1\'=\'1"'),
        *_texts(r'"a\u0000" | "\ud800" | null | 0 | true | ["kid"] | {"kid":1}'),
        *(json.dumps(text) for text in ("x" * 256, "x" * 257, "é" * 200)),
    ),
}

FORBIDDEN = {
    "crit": _texts(
        '[] | ["exp"] | ["b64"] | ["alg"] | null | "exp" | [1] | ["b64","b64"]'
    ),
    "b64": _texts('true | false | null | "true" | 0'),
    "jku": _texts('"https://attacker.test/jwks" | "http://127.0.0.1/" | "" | null'),
    "x5u": _texts('"https://attacker.test/x5u" | "file:///etc/passwd"'),
    "x5c": _texts('[] | ["MIIB"] | "MIIB"'),
    "zip": _texts('"DEF" | "none" | null'),
    "cty": _texts('"JWT" | "at+jwt" | ""'),
}

CLAIM_VALUES = {
    "iss": (
        *_texts(r'"<ISS>/" | " <ISS>" | "<ISS>\u0000" | "<ISS>.evil" | ["<ISS>"] | ""'),
        *_texts('"http://issuer.test" | "HTTPS://issuer.test" | null'),
    ),
    "aud": (
        *_texts('"API" | "ap" | "apis" | "" | "other" | "<AUD> " | [] | ["other"]'),
        *_texts(
            'null | ["API"] | [["<AUD>"]] | {"aud":"<AUD>"} | [null] | [1,"<AUD>"]'
        ),
        *_texts('["<AUD>",""] | "other <AUD>" | "<AUD>,other"'),
    ),
    "gen": _texts(
        '-1 | 1.0 | 0.0 | "0" | true | null | [0] | 1e0 | 18446744073709551616'
    ),
    "scope": _texts(r'["a","b"] | null | 1 | "a\tb" | "a\nb" | {}'),
    "roles": _texts(r'"clerk" | null | {} | [1] | [""] | ["a\nb"] | [[]]'),
    "username": (*_texts(r'null | 1 | "a\u0000" | []'), '"' + "x" * 65 + '"'),
}

#: Around the edges that the leeway of 5 s draws.
DATES = tuple(
    f"{NOW + offset}{fraction}"
    for offset in (-600, -6, -5, -4, 0, 4, 5, 6, 600)
    for fraction in ("", ".0", ".5", ".5")
)

#: The same facts otherwise written: every verifier must put up with these.
ALIKE = {
    "aud": _texts('["<AUD>"] | ["other","<AUD>"]'),
    "exp": (f"{NOW + 300}.25", "1.9e9"),
    "iat": (f"{NOW}.0",),
    "nbf": (str(NOW),),
    "iss": (json.dumps(ISSUER).replace("/", "\\/"),),
    "sub": ('"\\u0061lice"',),
    "gen": ("7",),
    "scope": ('""',),
    "roles": ("[]",),
}
ALIKE_TYPS = _texts(
    r'"AT+JWT" | "At+Jwt" | "application/at+jwt" | "Application/AT+jwt" | "at\u002bjwt"'
)


def write_otherwise(data: bytes, how: str) -> bytes:
    """Return JSON text in another coding, or no longer JSON, in the named way."""
    text = data.decode("utf-8", "replace")
    if how.startswith("utf-"):
        return text.encode(how)
    return {
        "bom": b"\xef\xbb\xbf" + data,
        "latin-1": data.replace(b"alice", b"al\xefce").replace(b"RS", b"R\xd3"),
        "overlong": data.replace(b"a", b"\xc1\xa1", 1),
        "surrogate": data.replace(b":", b':"\xed\xa0\x80","x":', 1),
        "nul": data + b"\0",
        "behind": data + b"{}",
        "comma": data[:-1] + b",}",
        "comment": data[:-1] + b"/**/}",
        "single-quotes": data.replace(b'"', b"'"),
        "bare-names": data.replace(b'"sub"', b"sub").replace(b'"typ"', b"typ"),
        "form-feed": b"\f" + data,
        "nbsp": b"\xc2\xa0" + data,
        "list": b"[" + data + b"]",
        "string": json.dumps(text).encode(),
        "number": b"1",
        "null": b"null",
        "empty": b"",
        "empty-object": b"{}",
        "cut": data[:-1],
        "raw-control": data.replace(b'":"', b'":"\x01', 1),
        "nan": data[:-1] + b',"x":NaN}',
        "infinity": data[:-1] + b',"x":-Infinity}',
        "deep": data[:-1] + b',"x":' + DEEP.encode() + b"}",
        "very-deep": data[:-1] + b',"x":' + b"[" * 3_000 + b"]" * 3_000 + b"}",
    }[how]


WRITINGS = (
    *("bom", "latin-1", "overlong", "surrogate", "nul", "behind", "comma", "comment"),
    *("single-quotes", "bare-names", "form-feed", "nbsp", "list", "string", "number"),
    *("null", "empty", "empty-object", "cut", "raw-control", "nan", "infinity", "deep"),
    *("very-deep", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7"),
)


def encode_otherwise(segment: bytes, how: str) -> bytes:
    """Return a base64url segment in another spelling, or broken, in the named way."""
    padding = b"=" * (-len(segment) % 4)
    return {
        "padded": segment + padding,
        "padding": segment + b"=",
        "padding-two": segment + b"==",
        "padding-four": segment + padding + b"====",
        "standard": segment.replace(b"-", b"+").replace(b"_", b"/"),
        "line-end": segment + b"\n",
        "line-broken": segment[:10] + b"\r\n" + segment[10:],
        "space": segment[:3] + b" " + segment[3:],
        "nul": segment + b"\0",
        "bang": segment[:4] + b"!" + segment[4:],
        "percent": segment.replace(b"e", b"%65", 1),
        "loose-bits": _with_loose_bit(segment),
        "one-more": segment + b"A",
        "empty": b"",
        "not-ascii": segment[:2] + "é".encode() + segment[2:],
    }[how]


def _with_loose_bit(segment: bytes) -> bytes:
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    at = alphabet.find(segment[-1:])
    if at < 0 or len(segment) % 4 == 0:
        return segment
    return segment[:-1] + alphabet[at ^ 1 : (at ^ 1) + 1]


ENCODINGS = (
    *("padded", "padding", "padding-two", "padding-four", "standard", "line-end"),
    *("line-broken", "space", "nul", "bang", "percent", "loose-bits", "one-more"),
    *("empty", "not-ascii"),
)
