"""Real OpenID providers for tests: Keycloak, node oidc-provider and LemonLDAP::NG.

Each runs on loopback, on a free port, with files of its own.
"""
