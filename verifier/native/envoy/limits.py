"""What Envoy cannot check of a policy that gateways can check; needs no extra."""

from __future__ import annotations

from typing import Final

from verifier.native.terms import InexpressibleError, NativeTerms

#: Envoy's numbers are doubles, which hold no greater one exactly.
_MAX_INTEGER: Final = 1 << 53


def check_terms(terms: NativeTerms) -> None:
    """Check that Envoy can check all of a policy.

    Raises:
        InexpressibleError: naming the policy and the field.
    """
    for path, values in terms.claims:
        if any(isinstance(v, int) and abs(v) > _MAX_INTEGER for v in values):
            raise InexpressibleError(
                f"policy {terms.policy}: Envoy cannot check it: claims: "
                f"{'.'.join(path)}: a number beyond 2^53, which Envoy takes for others"
            )
