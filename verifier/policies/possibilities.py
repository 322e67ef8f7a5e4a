"""What an access log leaves open about a request, as cases that a policy can decide.

A log has no token. It does not say which further claims a token had, nor how old it
was, and of a refused request it says nothing about the token at all. So a request may
have been one of several, and what would change is certain only if it is the same for
each of them.

There are endless many possible tokens, but a few cases are enough. A policy asks for
things that a token has or not (a scope, one of two roles, an age below a bound), and no
rule asks that a token lacks something. If a decision depends on what is not known, it
shows in one of these tokens: one that has everything that any rule here asks for, one
for each single condition that has everything but that, and those that have nothing. A
refused token may lack several things, and its status says in which order they were
asked for: an old login is 401, a missing scope 403. So those that have nothing are
young, or just too old for one age that is asked for, or too old for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from verifier.check.claims import ClaimPath, Claims, Scalar
from verifier.check.policy import IssuerTerms, Policy, TokenPolicy
from verifier.check.rules.requirements import Requirements
from verifier.check.rules.rule import Rule
from verifier.policies.access_log import Identity, LoggedRequest

#: A value with its type: in JSON `1` is not `true`, in Python they are equal.
_Value = tuple[str, Scalar]
_Kept = tuple[tuple[ClaimPath, tuple[_Value, ...]], ...]
#: Seconds between a bound and an age that is just above it.
_ABOVE: Final = 0.5


class SupposedToken(NamedTuple):
    """A good token that a request may have had.

    Attributes:
        issuer: its `iss`.
        audiences: those that it is for.
        scopes, roles: what it has.
        client_id: of its client; empty for one that no policy names.
        kept: the values of claims that policies read.
        age: seconds since it was made.
        auth_age: seconds since the person logged in; None for a program's own.
    """

    issuer: str
    audiences: frozenset[str]
    scopes: frozenset[str]
    roles: frozenset[str]
    client_id: str
    kept: _Kept
    age: float
    auth_age: float | None

    def is_for(self, policy: TokenPolicy) -> bool:
        """Return whether a policy accepts its issuer, and the token is for that."""
        return any(
            terms.issuer == self.issuer and terms.audience in self.audiences
            for terms in policy.issuers
        )

    def claims(self, now: int) -> Claims:
        """Return its claims, as a policy would read them at a time in Unix seconds."""
        return Claims(
            iss=self.issuer,
            sub="supposed",
            audiences=self.audiences,
            exp=now + 1,
            iat=now - self.age,
            nbf=0,
            jti="supposed",
            sid="supposed",
            gen=0,
            client_id=self.client_id,
            scopes=tuple(sorted(self.scopes)),
            roles=tuple(sorted(self.roles)),
            username="",
            auth_time=0 if self.auth_age is None else now - self.auth_age,
            kept={path: tuple(v for _, v in values) for path, values in self.kept},
        )


class Possibility(NamedTuple):
    """One way in which a logged request may have been.

    Attributes:
        token: the good token it had; None for none.
        has_credential: it had a credential; without `token` it was not good.
        is_preflight: it had the headers of a CORS preflight.
    """

    token: SupposedToken | None = None
    has_credential: bool = True
    is_preflight: bool = False


def possibilities(
    request: LoggedRequest, choices: Sequence[tuple[Policy, Rule | None]]
) -> list[Possibility]:
    """Return the cases of a request between which these policies may distinguish.

    Args:
        request: from the log.
        choices: the policies that are compared, with the rule of each that matches; at
            least one.
    """
    tokens = [Possibility(token) for token in _tokens(request.identity, choices)]
    if request.identity is not None:
        return tokens
    anonymous = [Possibility(has_credential=False)]
    if request.method == "OPTIONS" and any(p.allows_preflight for p, _ in choices):
        # The log does not say whether a page of another origin asked.
        anonymous.append(Possibility(has_credential=False, is_preflight=True))
    found = [*tokens, Possibility(), *anonymous]
    if request.has_credential is None:
        return found
    return [one for one in found if one.has_credential is request.has_credential]


def _tokens(
    identity: Identity | None, choices: Sequence[tuple[Policy, Rule | None]]
) -> list[SupposedToken]:
    asked = [policy.requirements for policy, _ in choices]
    asked += [rule.requirements for _, rule in choices if rule is not None]
    found: list[SupposedToken] = []
    for terms in {one.issuer: one for one in _terms(choices)}.values():
        found += _tokens_of(terms, identity, choices, asked)
    return list(dict.fromkeys(found))


def _terms(choices: Sequence[tuple[Policy, Rule | None]]) -> Iterator[IssuerTerms]:
    for policy, _ in choices:
        yield from policy.token.issuers


def _tokens_of(
    terms: IssuerTerms,
    identity: Identity | None,
    choices: Sequence[tuple[Policy, Rule | None]],
    asked: Sequence[Requirements],
) -> list[SupposedToken]:
    """Return the tokens of one issuer."""
    issuer, leeway = terms.issuer, choices[0][0].token.leeway
    complete = SupposedToken(
        issuer=issuer,
        audiences=frozenset(
            one.audience for one in _terms(choices) if one.issuer == issuer
        ),
        scopes=_union(one.required_scopes | one.any_scopes for one in asked),
        roles=_union(one.required_roles for one in asked),
        client_id="",
        kept=_all_kept(asked),
        age=0,
        auth_age=0,
    )
    tokens = [complete]
    for one in asked:
        tokens += _without_one(complete, one, terms, leeway)
    tokens += _nothing(complete, asked, terms, leeway)
    if identity is None:
        clients = _clients([one.client_ids for one in asked])
        tokens = [t._replace(client_id=name) for t in tokens for name in clients]
    else:
        tokens = [token._replace(**identity._asdict()) for token in tokens]
    if len(complete.audiences) > 1:
        # A token may be for one of them only.
        ways = [complete.audiences, *(frozenset([one]) for one in complete.audiences)]
        tokens = [t._replace(audiences=way) for way in ways for t in tokens]
    return tokens


def _without_one(
    complete: SupposedToken, asked: Requirements, terms: IssuerTerms, leeway: int
) -> Iterator[SupposedToken]:
    """Yield tokens that have everything but one thing that is asked for."""
    for scope in asked.required_scopes:
        yield complete._replace(scopes=complete.scopes - {scope})
    if asked.any_scopes:
        yield complete._replace(scopes=complete.scopes - asked.any_scopes)
    if asked.required_roles:
        yield complete._replace(roles=complete.roles - asked.required_roles)
    for path, accepted in asked.claims:
        refused = set(map(_typed, accepted))
        kept = dict(complete.kept)
        kept[path] = tuple(value for value in kept[path] if value not in refused)
        yield complete._replace(kept=tuple(kept.items()))
    yield from _too_old(complete, asked, terms, leeway)


def _too_old(
    token: SupposedToken, asked: Requirements, terms: IssuerTerms, leeway: int
) -> Iterator[SupposedToken]:
    """Yield the token, just too old for one age that is asked for."""
    # An older token is not good any more, whatever the policy asks.
    if 0 < asked.max_age < terms.max_lifetime:
        yield token._replace(age=asked.max_age + leeway + _ABOVE)
    if asked.max_auth_age:
        yield token._replace(auth_age=asked.max_auth_age + leeway + _ABOVE)


def _nothing(
    complete: SupposedToken,
    asked: Sequence[Requirements],
    terms: IssuerTerms,
    leeway: int,
) -> Iterator[SupposedToken]:
    """Yield tokens that have nothing that is asked for, of several ages.

    Where no age is asked for, they are as old as the others: equal cases are decided
    once.
    """
    young = complete._replace(scopes=frozenset(), roles=frozenset(), kept=())
    yield young
    for one in asked:
        yield from _too_old(young, one, terms, leeway)
    oldest = terms.max_lifetime + leeway - _ABOVE
    yield young._replace(
        age=oldest if any(one.max_age for one in asked) else 0,
        auth_age=None if any(one.max_auth_age for one in asked) else 0,
    )


def _all_kept(asked: Iterable[Requirements]) -> _Kept:
    kept: dict[ClaimPath, dict[_Value, None]] = {}
    for one in asked:
        for path, accepted in one.claims:
            kept.setdefault(path, {}).update(dict.fromkeys(map(_typed, accepted)))
    return tuple((path, tuple(values)) for path, values in kept.items())


def _typed(value: Scalar) -> _Value:
    return type(value).__name__, value


def _clients(lists: Sequence[frozenset[str]]) -> list[str]:
    """Return a client for each way of being in some of the lists, and one in none."""
    found = {
        tuple(name in one for one in lists): name for name in sorted(_union(lists))
    }
    return [*(found[ways] for ways in sorted(found, key=sum, reverse=True)), ""]


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*sets)
