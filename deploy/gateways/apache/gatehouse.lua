-- The check of every request, for Apache's mod_lua. gatehouse.conf names this file.
--
-- Change two addresses:
--     127.0.0.1:9000   the verifier   (or  unix:/run/gatehouse/verifier.sock )
--     127.0.0.1:9001   a second verifier; if there is none, remove it: any program that is
--                      started there could let requests pass while the first is away

local VERIFIERS = { "127.0.0.1:9000", "127.0.0.1:9001" }
-- A policy is named in the path: /verify/apache/p/orders-write
local CHECK_PATH = "/verify/apache"
-- A client without a token reads this (RFC 9728); gatehouse.conf has the route.
local METADATA_PATH = "/.well-known/oauth-protected-resource"

-- Seconds. A slow verifier counts as unavailable.
local CONNECT_TIME, ANSWER_TIME = 0.2, 1
-- Bytes of an answer. A longer one is none; a verifier's has at most 20 kB.
local MAX_ANSWER = 65536

local socket = require "socket"
local has_unix, unix = pcall(require, "socket.unix")

-- The verifier sends each of these once on every allow, empty without a value; the last
-- only for a policy with decision_ids = true. For a policy with further headers, add them.
local IDENTITY = {
    "X-Auth-Subject", "X-Auth-User", "X-Auth-Client", "X-Auth-Scope", "X-Auth-Roles",
    "X-Auth-Session", "X-Auth-Decision", "X-Auth-Decision-Id",
}

-- What a client may not say: who it is, what was before this gateway, and by which path
-- some frameworks route instead of the one that was checked.
local PREFIXES = { "x-auth-", "x-forwarded-", "x-original-" }
local NAMES = {
    ["x-auth"] = true, ["x-forwarded"] = true,
    ["remote-user"] = true, ["x-remote-user"] = true, ["forwarded"] = true,
    ["x-real-ip"] = true, ["x-rewrite-url"] = true, ["http2-settings"] = true,
    ["proxy"] = true,
}

local function may_pass(name)
    -- X_Auth_Subject reads like X-Auth-Subject to WSGI, CGI and PHP, and X.Auth.Subject to
    -- some servers.
    if NAMES[name] or name:find("[^a-z0-9-]") then
        return false
    end
    for _, prefix in ipairs(PREFIXES) do
        if name:sub(1, #prefix) == prefix then
            return false
        end
    end
    return true
end

local function remove_claims(r)
    local refused = {}
    for name in pairs(r:headers_in_table()) do
        if not may_pass(name:lower()) then
            refused[#refused + 1] = name
        end
    end
    for _, name in ipairs(refused) do
        r.headers_in[name] = nil
    end
end

-- A client may upgrade to a WebSocket only. Everything else in Connection is removed:
-- headers named there would not reach the application, the verified identity among them.
local function set_connection(r)
    if (r.headers_in["Upgrade"] or ""):lower() == "websocket" then
        r.headers_in["Connection"] = "Upgrade"
    else
        r.headers_in["Upgrade"] = nil
        r.headers_in["Connection"] = nil
    end
end

local function open(address)
    local path = address:match("^unix:(.+)$")
    local host, port = address:match("^(.+):(%d+)$")
    local connection = path and has_unix and unix() or socket.tcp()
    connection:settimeout(CONNECT_TIME)
    if connection:connect(path or host, not path and port or nil) then
        -- Both of a pause and of the whole; the first is still that of the connection.
        connection:settimeout(ANSWER_TIME, "b")
        connection:settimeout(ANSWER_TIME, "t")
        return connection
    end
    connection:close()
end

-- Return status and headers of an answer, or nothing if its head is not whole.
local function read_answer(answer)
    local head = answer:match("^(.-\r\n)\r\n")
    local status = head and head:match("^HTTP/1%.1 (%d%d%d) [^\r\n]*\r\n")
    if not status then
        return
    end
    local headers = {}
    for line in head:gmatch("\n([^\n]*)\r") do
        local name, value = line:match("^([^:%s]+): ?(.*)$")
        if not name then
            return
        end
        headers[name:lower()] = value
    end
    return tonumber(status), headers
end

-- Return status and headers of the answer, or nothing.
local function ask(address, head)
    local connection = open(address)
    if not connection then
        return
    end
    local whole, _, beginning
    if connection:send(head) then
        -- The verifier closes after its answer, because the check says so.
        whole, _, beginning = connection:receive(MAX_ANSWER)
    end
    connection:close()
    if whole or not beginning then
        return
    end
    return read_answer(beginning)
end

local function write_check(r, host)
    -- Only these headers are sent; the verifier uses no others.
    local lines = {
        "GET " .. CHECK_PATH .. " HTTP/1.1",
        "Host: verifier",
        -- Each thread has one request at a time. Kept connections, one for each thread,
        -- would be more than the verifier takes from one peer.
        "Connection: close",
        "X-Original-Method: " .. r.method,
        "X-Original-URI: " .. r.unparsed_uri,
        "X-Original-Host: " .. host,
        -- For the verifier's log line about a refusal; it does not affect the decision.
        "X-Request-ID: " .. r.headers_in["X-Request-ID"],
    }
    for _, name in ipairs({
        "Authorization", "Traceparent",
        -- A policy with preflight = "allow" recognises a CORS preflight by these.
        "Origin", "Access-Control-Request-Method",
    }) do
        local value = r.headers_in[name]
        if value then
            lines[#lines + 1] = name .. ": " .. value
        end
    end
    return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

local function refuse(r, status, headers)
    for _, name in ipairs({ "WWW-Authenticate", "Retry-After", "X-Auth-Decision-Id" }) do
        r.err_headers_out[name] = headers[name:lower()]
    end
    return status
end

local function check(r)
    remove_claims(r)
    set_connection(r)
    -- A target such as  http://other/path  would be read in two ways.
    if r.unparsed_uri:sub(1, 1) ~= "/" then
        return 400
    end
    -- The verifier accepts URIs up to 8 kB and tokens of 8,000 bytes.
    if #r.unparsed_uri > 8192 then
        return 414
    end
    -- An upload goes on to the application while it is sent.
    r.subprocess_env["proxy-prefetch-nonblocking"] = "1"
    local host = r.headers_in["Host"] or "localhost"
    r.headers_in["X-Forwarded-For"] = r.useragent_ip
    r.headers_in["X-Real-IP"] = r.useragent_ip
    r.headers_in["X-Forwarded-Host"] = host
    r.headers_in["X-Forwarded-Proto"] = r.is_https and "https" or "http"
    -- Apache's own id of the request, %{UNIQUE_ID}e in a log. In ours "@" would be unsafe.
    local id = (r.subprocess_env["UNIQUE_ID"] or ""):gsub("@", "_")
    r.headers_in["X-Request-ID"] = id

    if r.unparsed_uri == METADATA_PATH and r.method == "GET" then
        r.headers_in["Authorization"] = nil
        r.subprocess_env["gatehouse"] = "metadata"
        return apache2.OK
    end

    local head = write_check(r, host)
    local status, headers
    -- A check changes nothing, so a check without an answer is sent once more.
    for _, address in ipairs(VERIFIERS) do
        status, headers = ask(address, head)
        if status then
            break
        end
    end
    -- A verifier's allow always has the decision. Another program that is started at its
    -- address by mistake answers 200 as well.
    if status == 200 and headers["x-auth-decision"] then
        for _, name in ipairs(IDENTITY) do
            r.headers_in[name] = headers[name:lower()]
        end
        -- The application gets the identity, not the token, because any holder of the
        -- token can use it elsewhere. Remove this line if the application must call other
        -- services with the token.
        r.headers_in["Authorization"] = nil
        r.subprocess_env["gatehouse"] = "passed"
        return apache2.OK
    elseif status == 401 or status == 403 or status == 503 then
        return refuse(r, status, headers)
    elseif status == 400 or status == 414 or status == 431 then
        return 431
    end
    -- Any other answer is none: nothing passes that is not exactly 200.
    return refuse(r, 503, { ["retry-after"] = "5" })
end

function gatehouse(r)
    local is_well, status = pcall(check, r)
    if is_well then
        return status
    end
    r:err("gatehouse: " .. tostring(status))
    return refuse(r, 503, { ["retry-after"] = "5" })
end
