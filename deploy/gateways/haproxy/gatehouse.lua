-- Asks Gatehouse's verifier about a request; haproxy.cfg loads it and says when.
--
-- There is nothing to change here: both actions get their addresses from haproxy.cfg. They
-- need core.httpclient(), so HAProxy 2.5 or newer, built with Lua (every usual package).
--
-- An action that fails, in whatever way, sets no permission: haproxy.cfg lets a request
-- pass only if txn.gatehouse is "allow", and answers 503 otherwise.

-- Longer than two tries of the backend gatehouse_verifier, which has the time-outs. The
-- client repeats a timed-out request three times by itself, so its own must never end.
local TIMEOUT_MS = 10000

local REFUSALS = { [401] = true, [403] = true, [503] = true }
-- What a refused client gets of the verifier's answer.
local REFUSAL_HEADERS = {
    "www-authenticate", "retry-after", "content-type", "cache-control", "x-auth-decision-id",
}
local METADATA_HEADERS = {
    "content-type", "cache-control", "access-control-allow-origin", "retry-after",
}

-- Ask over a listener of this HAProxy, which passes the question on to a verifier.
local function ask(listener, path, headers)
    -- With "dst" the host of the URL is only the Host header; it is not looked up.
    return core.httpclient():get{
        url = "http://gatehouse" .. path,
        headers = headers,
        dst = listener,
        timeout = TIMEOUT_MS,
    }
end

-- HAProxy counts the lines of a header from 0.
local function first(answer, name)
    local lines = answer.headers and answer.headers[name]
    return lines and lines[0]
end

-- End the request with the verifier's answer.
local function reply(txn, answer, names)
    local sent = txn:reply{ status = answer.status, reason = answer.reason, body = answer.body }
    for _, name in ipairs(names) do
        for _, value in pairs(answer.headers[name] or {}) do
            sent:add_header(name, value)
        end
    end
    txn:done(sent)
end

-- http-request lua.gatehouse_check <listener> <check path>
core.register_action("gatehouse_check", { "http-req" }, function(txn, listener, path)
    local client = txn.http:req_get_headers()
    -- The verifier gets these and no others, each with all its lines: it refuses a
    -- repeated Authorization or Host itself.
    local question = {
        ["authorization"] = client["authorization"],
        ["x-original-method"] = { txn.f:method() },
        -- As the client wrote it. A URI without a path, "*", sends none.
        ["x-original-uri"] = { txn.f:pathq() },
        ["x-original-host"] = client["host"],
        -- A policy with preflight = "allow" recognises a CORS preflight by these.
        ["origin"] = client["origin"],
        ["access-control-request-method"] = client["access-control-request-method"],
        -- For the verifier's log line about a refusal; they do not affect the decision.
        ["x-request-id"] = { txn.f:unique_id() },
        ["traceparent"] = client["traceparent"],
    }
    local answer = ask(listener, path, question)

    -- A verifier's allow always has the decision. Another program that is started at its
    -- address by mistake answers 200 as well.
    if answer.status == 200 and first(answer, "x-auth-decision") then
        for name, lines in pairs(answer.headers) do
            if name:find("^x%-auth%-") then
                txn.http:req_set_header(name, lines[0])
            end
        end
        txn:set_var("txn.gatehouse", "allow")
    elseif REFUSALS[answer.status] and first(answer, "x-auth-decision-id") then
        reply(txn, answer, REFUSAL_HEADERS)
    end
    -- Otherwise there is no verifier; haproxy.cfg answers 503.
end, 2)

-- http-request lua.gatehouse_document <listener> <path>
core.register_action("gatehouse_document", { "http-req" }, function(txn, listener, path)
    local answer = ask(listener, path, {})
    if answer.status == 200 or answer.status == 404 then
        reply(txn, answer, METADATA_HEADERS)
    end
end, 2)
