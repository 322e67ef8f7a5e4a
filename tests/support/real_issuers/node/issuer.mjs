// An OpenID provider whose access tokens are JWTs: docs/issuers/oidc-provider.md.
// PORT: where it listens. KEYS: its private keys, a JSON array of JWKs.
import { Provider } from "oidc-provider";

const { PORT, KEYS } = process.env;
// The algorithm that each API's tokens are signed with.
const apis = { "urn:orders": "ES256", "urn:orders:ed25519": "EdDSA" };

const provider = new Provider(`http://127.0.0.1:${PORT}`, {
  jwks: { keys: JSON.parse(KEYS) },
  clients: [
    {
      client_id: "shop",
      client_secret: "shop-secret",
      grant_types: ["authorization_code", "client_credentials"],
      response_types: ["code"],
      redirect_uris: ["https://shop.example.test/callback"],
      id_token_signed_response_alg: "ES256",
    },
  ],
  features: {
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => "urn:orders",
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, resource) => ({
        scope: "orders:read orders:write",
        audience: "orders",
        accessTokenFormat: "jwt",
        accessTokenTTL: 600,
        jwt: { sign: { alg: apis[resource] } },
      }),
    },
  },
  // A token has neither roles nor the session by itself.
  extraTokenClaims: (ctx, token) =>
    token.accountId
      ? { roles: ["clerk"], username: token.accountId, sid: token.sessionUid }
      : { roles: ["robot"] },
});

provider.listen(Number(PORT), "127.0.0.1");
