"""What `check` looks at for the verifier: files, policies, ports, and the issuer.

A check writes nothing that stays, and no revocation waits for it as for a follower.
"""
