"""What Envoy cannot check of a policy that gateways can check; needs no extra."""

from __future__ import annotations

from typing import Final

from verifier.native.terms import InexpressibleError, NativeTerms

#: Envoy's numbers are doubles: from this one on, two whole numbers are one of them.
_TOO_GREAT: Final = 1 << 53
#: Required scopes, roles and values of claims in one policy. Each is a condition, which
#: is sent again with every revocation.
MAX_VALUES: Final = 500


def check_terms(terms: NativeTerms) -> None:
    """Check that Envoy can check all of a policy.

    Raises:
        InexpressibleError: naming the policy and the field.
    """
    for path, values in terms.claims:
        if any(isinstance(v, int) and abs(v) >= _TOO_GREAT for v in values):
            raise InexpressibleError(
                f"policy {terms.policy}: Envoy cannot check it: claims: "
                f"{'.'.join(path)}: a number of 2^53 or more, which Envoy takes for others"
            )
    count = len(terms.required_scopes) + len(terms.required_roles)
    count += sum(len(values) for _, values in terms.claims)
    if count > MAX_VALUES:
        raise InexpressibleError(
            f"policy {terms.policy}: Envoy cannot check it: required_scopes, required_roles "
            f"and claims: {count} values; {MAX_VALUES} at most"
        )
