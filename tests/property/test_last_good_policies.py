"""After any history of policy files the gate answers by the last good one (R65)."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.gatehouse_verifier import SimulatedVerifier, started
from tests.support.proofs import examples
from tests.support.reloading import ReloadableVerifier

NAMES = ("default", "a", "b")
#: For each policy: whether a good token passes; None: there is no such policy.
#: `default` is always there.
Book = dict[str, bool | None]
BOOKS = st.fixed_dictionaries(
    {name: st.sampled_from([True, False, None]) for name in NAMES}
)
BAD = st.sampled_from(
    [
        None,
        "",
        "\n",
        "[",
        "policies = 1",
        "[policies.A]",
        "[policies.a]\nscopes = []",
        "\x00",
    ]
)
AUDIENCES = st.sampled_from(["", "other"])


def write(book: Book, audience: str) -> str:
    """Return the file; another policy with another audience comes and goes."""
    lines = ["# policies"]
    for name, passes in book.items():
        if passes is not None:
            lines.append(f"[policies.{name}]")
        if passes is False:
            lines.append('required_scopes = ["admin"]')
    if audience:
        lines += ["[policies.far]", f'audience = "{audience}"']
    return "\n".join(lines)


def answers(verifier: SimulatedVerifier, token: bytes) -> dict[str, int]:
    return {
        name: verifier.check(token, target=f"/verify/nginx/p/{name}".encode()).status
        for name in NAMES
    }


def expected(book: Book) -> dict[str, int]:
    statuses = {True: 200, False: 403, None: 503}
    found = {name: statuses[passes] for name, passes in book.items()}
    return found | {"default": 403 if book["default"] is False else 200}


@settings(deadline=None, max_examples=examples(40))
@given(
    history=st.lists(
        st.one_of(BAD, st.tuples(BOOKS, AUDIENCES)), min_size=1, max_size=12
    )
)
def test_the_gate_answers_by_the_last_good_file(
    history: list[tuple[Book, str] | str | None],
) -> None:
    """R65."""
    asyncio.run(follow(history))


async def follow(history: list[tuple[Book, str] | str | None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        verifier = await started()
        token = verifier.issuer.mint()
        good: Book = {"default": True, "a": None, "b": None}
        reloadable = ReloadableVerifier(verifier, Path(folder), write(good, ""))
        for entry in history:
            is_good = isinstance(entry, tuple)
            if isinstance(entry, tuple):
                good = entry[0]
                await reloadable.reload_with(write(*entry))
            else:
                await reloadable.reload_with(entry)
            assert answers(verifier, token) == expected(good)
            assert (reloadable.report.policy_error == "") is is_good
