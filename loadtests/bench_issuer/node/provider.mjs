// oidc-provider with its in-memory store, set up to do for a client what our issuer
// does: client_secret_basic, a signed JWT access token (RS256, RSA 2048), one audience.
import { generateKeyPairSync } from "node:crypto";
import { Provider } from "oidc-provider";

const { port, clientId, clientSecret, audience, isJwt } = JSON.parse(process.env.PEER);
const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const jwk = privateKey.export({ format: "jwk" });
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: clientId,
      client_secret: clientSecret,
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
      token_endpoint_auth_method: "client_secret_basic",
      scope: "orders:read",
    },
  ],
  jwks: { keys: [{ ...jwk, use: "sig", alg: "RS256", kid: "bench" }] },
  scopes: ["orders:read"],
  ttl: { ClientCredentials: 600 },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: isJwt,
      defaultResource: () => audience,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: "orders:read",
        accessTokenFormat: "jwt",
        accessTokenTTL: 600,
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
});
provider.listen(port, "127.0.0.1");
