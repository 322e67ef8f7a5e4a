// openid-client and jose against a running issuer, as anybody would use them.
// Prints one JSON object of what was found; ends with 1 when an assertion fails.
import assert from "node:assert/strict";
import { createRemoteJWKSet, jwtVerify } from "jose";
import * as client from "openid-client";

const running = JSON.parse(process.env.RUNNING);
const TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";

/** RFC 8414: the issuer's URL is all a client needs to know. */
function discover(clientId, authentication) {
  return client.discovery(new URL(running.url), clientId, undefined, authentication, {
    algorithm: "oauth2",
    // Loopback has no https.
    execute: [client.allowInsecureRequests],
  });
}

async function refusal(promise) {
  const error = await promise.then(
    () => assert.fail("it was not refused"),
    (error) => error,
  );
  // A 401 with a challenge is told apart from an OAuth error.
  if (error instanceof client.WWWAuthenticateChallengeError) {
    return { status: error.status, scheme: error.cause[0].scheme };
  }
  assert(error instanceof client.ResponseBodyError, String(error));
  return { status: error.status, error: error.error };
}

const found = {};
for (const [name, authentication] of [
  ["basic", client.ClientSecretBasic(running.clientSecret)],
  ["post", client.ClientSecretPost(running.clientSecret)],
]) {
  const config = await discover(running.clientId, authentication);
  const server = config.serverMetadata();
  assert.equal(server.issuer, running.url);
  const granted = await client.clientCredentialsGrant(config);
  assert.equal(granted.token_type, "bearer");

  // RFC 9068, section 4.
  const keys = createRemoteJWKSet(new URL(server.jwks_uri));
  const { payload, protectedHeader } = await jwtVerify(granted.access_token, keys, {
    issuer: running.url,
    audience: running.audience,
    typ: "at+jwt",
    algorithms: ["RS256"],
    requiredClaims: ["sub", "client_id", "jti", "iat", "exp", "scope"],
  });
  assert.equal(payload.sub, running.clientId);
  await assert.rejects(jwtVerify(granted.access_token, keys, { typ: "JWT" }));

  const before = await client.tokenIntrospection(config, granted.access_token);
  await client.tokenRevocation(config, granted.access_token);
  const after = await client.tokenIntrospection(config, granted.access_token);
  found[name] = {
    alg: protectedHeader.alg,
    before: before.active,
    after: after.active,
    scope: await refusal(
      client.clientCredentialsGrant(config, { scope: "orders:delete" }),
    ),
    target: await refusal(
      client.clientCredentialsGrant(config, { resource: "https://other.example" }),
    ),
  };
}

const wrong = await discover(running.clientId, client.ClientSecretBasic("ghs_wrong"));
found.wrongSecret = await refusal(client.clientCredentialsGrant(wrong));

const firstParty = await discover("gatehouse", client.None());
const refreshed = await client.refreshTokenGrant(firstParty, running.refreshToken);
assert.notEqual(refreshed.refresh_token, running.refreshToken);
await client.tokenRevocation(firstParty, refreshed.refresh_token);
found.afterRevocation = await refusal(
  client.refreshTokenGrant(firstParty, refreshed.refresh_token),
);

const exchanged = await client.genericGrantRequest(firstParty, TOKEN_EXCHANGE, {
  subject_token: running.personalKey,
  subject_token_type: "urn:gatehouse:token-type:personal-key",
});
found.exchanged = { type: exchanged.issued_token_type, scope: exchanged.scope };
console.log(JSON.stringify(found));
