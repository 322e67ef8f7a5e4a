"""What a policy and its rules ask of a request, and which rule matches it.

It owns requirements, rules and the canonical form of host and path. It imports claims
and refusals of `verifier.check`, and nothing above them.
"""
