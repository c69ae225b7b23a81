"""state: token: what a verified token gives the app, and what no token may ever reach it."""
import json
import time

import pytest

import tokens
from harness import Gateway, Origin, answer
from tokens import Key, claims, claims_of, header_of, jwks, malleated, verifies

ISSUER = "https://id.example"


def respond(asked, raw):
    """X-Say: headers of the answer, as JSON pairs; X-Status, X-Slow. The body tells what the app was told."""
    time.sleep(float(asked.get("x-slow", "0")))
    told = {k.lower(): v for k, v in asked.headers}
    told["target"] = asked.target
    return answer(int(asked.get("x-status", "200")), json.dumps(told),
                  [tuple(pair) for pair in json.loads(asked.get("x-say", "[]"))])


@pytest.fixture(scope="module")
def app():
    origin = Origin(respond)
    yield origin
    origin.close()


def bearer(token, *more):
    return [("Authorization", f"Bearer {token}"), *more]


def config(app, section, **route):
    return {"apps": {"shop": {"servers": [app.address]}},
            "routes": [{"path": "/*", "app": "shop", "state": "token", "expose": ["verdict"],
                        "token": {"issuer": ISSUER, "audience": ["shop"], **section}, **route}]}


class Issued:
    """Gateways that trust one key each, and that key."""

    def __init__(self, app, folder):
        self.app, self.folder, self.running = app, folder, {}

    def __call__(self, alg="ES256", keys=None, **section):
        name = json.dumps([alg, section], sort_keys=True)
        if name not in self.running:
            key = Key(alg)
            path = self.folder / f"{len(self.running)}.json"
            path.write_text(json.dumps(jwks(*(keys or [key]))))
            self.running[name] = (Gateway(config(self.app, {"keys": str(path), **section})), key)
        return self.running[name]


@pytest.fixture(scope="module")
def issued(app, tmp_path_factory):
    made = Issued(app, tmp_path_factory.mktemp("keys"))
    yield made
    for gateway, _ in made.running.values():
        gateway.close()


# ---- verified ----


@pytest.mark.parametrize("alg", ["ES256", "HS256", "RS256", "Ed25519"])
def test_claims_are_the_state(issued, alg):
    gateway, key = issued(alg)
    said = claims(name="Jos\u00e9", roles=["a", "b"])
    got = gateway.get("/x?y=1", headers=bearer(key.token(said)))
    assert got.status == 200, got
    told = got.json()
    assert json.loads(told["stateway-state"]) == said
    assert told["stateway-state"].isascii() and " " not in told["stateway-state"]
    assert told["stateway-state-info"] == f"inline;type=json;size={len(told['stateway-state'])}"
    assert told["stateway-version"] not in ('"0"', "")
    assert told["stateway-key"] == "visitor:" + told["stateway-visitor"]
    assert got.get("stateway-verdict") == "kept"
    assert told["authorization"].startswith("Bearer ")
    again = gateway.get("/", headers=bearer(key.token(claims(name="other")))).json()
    assert again["stateway-visitor"] == told["stateway-visitor"], "the same issuer and subject"
    assert again["stateway-version"] != told["stateway-version"]
    other = gateway.get("/", headers=bearer(key.token(claims(sub="bob")))).json()
    assert other["stateway-visitor"] != told["stateway-visitor"]


def test_optional_token(issued):
    gateway, key = issued(required="off")
    told = gateway.get("/").json()
    assert told["stateway-state-info"] == "absent" and "stateway-visitor" not in told
    assert gateway.get("/", headers=bearer(key.token(claims()))).json()["stateway-state-info"].startswith("inline")
    bad = gateway.get("/", headers=bearer(key.token(claims(exp=1))))
    assert bad.status == 401 and 'error="invalid_token"' in bad.get("www-authenticate"), "a bad one is not none"
    basic = gateway.get("/", headers=[("Authorization", "Basic YWJj")])
    assert basic.status == 200 and basic.json()["authorization"] == "Basic YWJj", "another scheme is the app's"


def test_scheme_in_any_case(issued):
    gateway, key = issued()
    for scheme in ("bearer", "BEARER", "bEaReR"):
        assert gateway.get("/", headers=[("Authorization", f"{scheme} {key.token(claims())}")]).status == 200


def test_claims_as_headers(issued):
    gateway, key = issued(headers={"X-User": "sub", "X-Roles": "roles", "X-Level": "level", "X-Name": "name"})
    forged = [("X-User", "root"), ("x_user", "root"), ("X-ROLES", "[\"admin\"]"), ("X-Level", "9"), ("X_Name", "x"),
              ("Connection", "X-User, close")]

    def told(**more):
        got = gateway.get("/", headers=bearer(key.token(claims(**more)), *forged))
        assert got.status == 200, got
        return {k: v for k, v in got.json().items() if k.replace("_", "-") in ("x-user", "x-roles", "x-level", "x-name")}

    assert told() == {"x-user": "alice"}, "what the token does not say is not there at all"
    assert told(roles=["a", 'b"'], level=7, name="Jos\u00e9") == {
        "x-user": "alice", "x-roles": '["a","b\\""]', "x-level": "7", "x-name": '"Jos\\u00e9"'}
    assert told(roles='["admin"]', level=None, name="a\r\nX-Evil: 1") == {
        "x-user": "alice", "x-roles": '"[\\"admin\\"]"', "x-name": '"a\\r\\nX-Evil: 1"'}
    assert told(name="plain name", level=True) == {"x-user": "alice", "x-name": "plain name", "x-level": "true"}


def test_trailers_cannot_say_what_headers_say(issued):
    gateway, key = issued(headers={"X-User": "sub", "X-Roles": "roles", "X-Level": "level", "X-Name": "name"})
    with gateway.connect() as raw:
        raw.send(f"POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key.token(claims())}\r\n"
                 "Transfer-Encoding: chunked\r\nTrailer: X-User\r\n\r\n2\r\nhi\r\n0\r\nX-User: root\r\n\r\n")
        got = raw.read("POST")
    assert got.status == 200 and "root" not in got.body.decode()


def test_claims_name_the_entity(app, issued, tmp_path):
    key = Key("ES256")
    (tmp_path / "k.json").write_text(json.dumps(jwks(key)))
    section = {"keys": str(tmp_path / "k.json"), "required": "off"}
    with Gateway(config(app, section, state="session", session={"key": "claim.tenant"})) as gateway:
        say = ("X-Say", json.dumps([["Stateway-Set", '{"n":1}']]))
        assert gateway.post("/", headers=bearer(key.token(claims(tenant="acme")), say)).status == 200
        told = gateway.get("/", headers=bearer(key.token(claims(tenant="acme", sub="bob")))).json()
        assert told["stateway-key"] == "tenant:acme" and told["stateway-state"] == '{"n":1}'
        told = gateway.get("/", headers=bearer(key.token(claims(tenant="globex")))).json()
        assert told["stateway-state-info"] == "absent"
        for more, status in (({}, 403), ({"tenant": ""}, 403), ({"tenant": 7}, 403), ({"tenant": "x" * 600}, 403)):
            got = gateway.get("/", headers=bearer(key.token(claims(**more))))
            assert got.status == status and got.get("stateway-error") == "token-required", got
        got = gateway.get("/")
        assert got.status == 401 and got.get("www-authenticate") == 'Bearer realm="shop"'


def test_reruns_and_queues_keep_the_claims(app, tmp_path):
    """A request that meets a conflict runs again: verified again, and with the same claims."""
    key = Key("ES256")
    (tmp_path / "k.json").write_text(json.dumps(jwks(key)))
    section = {"keys": str(tmp_path / "k.json"), "headers": {"X-User": "sub"}}
    from concurrent.futures import ThreadPoolExecutor
    with Gateway(config(app, section, state="session", replay="safe",
                        session={"key": "claim.tenant", "concurrency": "cas"})) as gateway:
        def add(n):
            say = json.dumps([["Stateway-Patch", json.dumps({f"k{n}": n})]])
            return gateway.post("/", headers=bearer(key.token(claims(tenant="t", sub=f"u{n}")), ("X-Say", say),
                                                    ("X-Slow", "0.05")))
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(add, range(8)))
        assert {a.status for a in answers} == {200}, answers
        assert [a.json()["x-user"] for a in answers] == [f"u{n}" for n in range(8)]
        told = gateway.get("/", headers=bearer(key.token(claims(tenant="t")))).json()
        assert json.loads(told["stateway-state"]) == {f"k{n}": n for n in range(8)}


# ---- refused: challenges ----


def test_challenges(issued):
    gateway, key = issued(require={"scope": ["cart", "read"], "claims": {"tenant": "acme"}})
    good = {"scope": "read cart more", "tenant": "acme"}
    assert gateway.get("/", headers=bearer(key.token(claims(**good)))).status == 200
    none = gateway.get("/")
    assert (none.status, none.all("www-authenticate")) == (401, ['Bearer realm="shop"']), "no error code: RFC 6750, 3"
    old = gateway.get("/", headers=bearer(key.token(claims(exp=int(time.time()) - 3600, **good))))
    assert (old.status, old.all("www-authenticate")) == (
        401, ['Bearer realm="shop", error="invalid_token", error_description="the token is past its time"'])
    scope = gateway.get("/", headers=bearer(key.token(claims(scope="read", tenant="acme"))))
    assert scope.status == 403
    assert scope.get("www-authenticate").endswith(', scope="cart read"')
    assert 'error="insufficient_scope"' in scope.get("www-authenticate")
    tenant = gateway.get("/", headers=bearer(key.token(claims(scope="cart read", tenant="evil"))))
    assert tenant.status == 403 and tenant.get("stateway-error") == "token-required"
    for refused in (none, old, scope, tenant):
        assert refused.get("cache-control") == "no-store"
        assert "evil" not in refused.head.decode() + refused.body.decode()
        assert len(refused.all("www-authenticate")) == 1
    assert gateway.request("HEAD", "/").status == 401


def test_one_token_and_one_place(issued, app):
    gateway, key = issued()
    token = key.token(claims())
    two = gateway.get("/", headers=bearer(token) + bearer(token))
    assert two.status == 400 and 'error="invalid_request"' in two.get("www-authenticate")
    mixed = gateway.get("/", headers=bearer(token, ("Authorization", "Basic YWJj")))
    assert mixed.status == 400
    url = gateway.get(f"/?access_token={token}&token={token}")
    assert url.status == 401 and url.all("www-authenticate") == ['Bearer realm="shop"'], "never from the URL"
    form = gateway.post("/", f"access_token={token}", headers=[("Content-Type", "application/x-www-form-urlencoded")])
    assert form.status == 401
    cookie = gateway.get("/", headers=[("Cookie", f"token={token}; access_token={token}")])
    assert cookie.status == 401, "the route takes no cookie"
    assert gateway.get("/", headers=[("Authorization_", f"Bearer {token}")]).status == 401


def test_token_in_a_cookie(issued):
    gateway, key = issued(**{"from": "cookie.jwt"})
    token = key.token(claims())
    got = gateway.get("/", headers=[("Cookie", f"a=1; jwt={token}; b=2")])
    assert got.status == 200 and got.json()["cookie"] == "a=1; b=2", "the app gets the claims, not the token"
    assert gateway.get("/", headers=bearer(token)).status == 401, "from a cookie and nowhere else"
    for headers in ([("Cookie", f"jwt={token}; jwt={token}")], [("Cookie", f"jwt={token}"), ("Cookie", "jwt=x")],
                    bearer(token, ("Cookie", f"jwt={token}"))):
        assert gateway.get("/", headers=headers).status == 400, headers
    # a browser sends a cookie along whoever caused the request
    cross = [("Cookie", f"jwt={token}"), ("Sec-Fetch-Site", "cross-site")]
    assert gateway.post("/", headers=cross).status == 403
    assert gateway.post("/", headers=[("Cookie", f"jwt={token}"), ("Origin", "https://evil.example")]).status == 403
    assert gateway.get("/", headers=cross).status == 200
    bad = gateway.get("/", headers=[("Cookie", f"jwt={token}x")])
    assert bad.status == 401 and not bad.all("set-cookie"), "another's cookie is left alone"


def test_a_bearer_header_needs_no_cross_site_check(issued):
    gateway, key = issued()
    assert gateway.post("/", headers=bearer(key.token(claims()), ("Sec-Fetch-Site", "cross-site"))).status == 200


def test_updates_have_nowhere_to_go(issued):
    gateway, key = issued()
    for name, value in (("Stateway-Set", "{}"), ("Stateway-Patch", "{}"), ("Stateway-Delete", "?1"),
                        ("Stateway-Renew", "?1"), ("Stateway-Subject", "bob")):
        got = gateway.get("/", headers=bearer(key.token(claims()), ("X-Say", json.dumps([[name, value]]))))
        assert got.status == 502 and got.get("stateway-error") == "update-readonly", (name, got)
    got = gateway.get("/", headers=bearer(key.token(claims()), ("X-Say", '[["Stateway-Set","{}"]]'), ("X-Status", "500")))
    assert got.status == 500, "a failed app's update is not looked at"


# ---- the red team ----


def attacks(key, other):
    """(name, token, label of the refusal): each must be answered 401, and no app may see it."""
    now = int(time.time())
    good = key.token(claims())
    head, body, signature = good.split(".")

    def unsigned(alg, sig=""):
        return tokens.b64(json.dumps({"alg": alg, "typ": "JWT"})) + "." + body + "." + sig

    for alg in ("none", "None", "NONE", "nOnE", "", "null"):
        yield f"alg {alg!r}", unsigned(alg), None
        yield f"alg {alg!r} with a signature", unsigned(alg, signature), None
    yield "alg none, the kid of a good key", tokens.b64(json.dumps({"alg": "none", "kid": key.kid})) + f".{body}.", None
    yield "alg is no text", key.token(claims(), {"alg": None}, raw_header='{"alg":["ES256"],"kid":"k1"}'), None
    yield "no alg", key.token(claims(), {"alg": None}), None
    # the public key's own text as a shared secret
    for secret in (json.dumps(key.jwk()), key.jwk().get("n", key.jwk().get("x", ""))):
        yield "HMAC with the public key", Key("HS256", secret=secret.encode()).token(claims()), "token-alg"
        yield "the same without kid", Key("HS256", secret=secret.encode()).token(claims(), {"kid": None}), None
    yield "another key of the same kid", other.token(claims()), "token-signature"
    for kid in ("../../../../dev/null", "/etc/passwd", "' UNION SELECT 'x'--", "k1\0", "K1", " k1", "k1/../k1",
                "$(id)", "x" * 255, "x" * 5000, "http://169.254.169.254/"):
        yield f"kid {kid[:20]!r}", key.token(claims(), {"kid": kid}), None
    yield "kid is no text", key.token(claims(), raw_header='{"alg":"ES256","kid":["k1"]}'), None
    for name in ("jwk", "jku", "x5u", "x5c"):
        value = {"jwk": other.jwk(), "x5c": ["MIIB"]}.get(name, "https://evil.example/keys")
        yield f"its own key in {name}", other.token(claims(), {name: value}), "token-signature"
    yield "crit", key.token(claims(), {"crit": ["exp"], "exp": 1}), "token-header"
    yield "crit, empty", key.token(claims(), {"crit": []}), "token-header"
    yield "b64", key.token(claims(), {"b64": False, "crit": ["b64"]}), "token-header"
    yield "zip", key.token(claims(), {"zip": "DEF", "crit": ["zip"]}), "token-header"
    # time
    yield "expired", key.token(claims(exp=now - 31)), "token-expired"
    yield "no exp", key.token(claims(exp=None)), "token-missing"
    yield "exp in milliseconds", key.token(claims(exp=now * 1000)), "token-claims"
    yield "exp is a text", key.token(claims(exp=str(now + 60))), "token-claims"
    yield "exp is huge", key.token(None, raw_claims=json.dumps(claims())[:-1] + ',"exp":1e400}'), "token-claims"
    yield "not yet", key.token(claims(nbf=now + 60)), "token-early"
    yield "from the future", key.token(claims(iat=now + 60)), "token-early"
    # for whom, by whom
    for aud in ("shopp", ["a", "b"], [], "", "SHOP", {"shop": 1}, None, ["sho", "p"], 7):
        yield f"aud {aud}", key.token(claims(aud=aud)), None
    for iss in ("https://id.example/", "https://ID.example", "https://evil.example", "", None, ["https://id.example"]):
        yield f"iss {iss}", key.token(claims(iss=iss)), None
    # its bytes
    yield "padding", good + "=", "token-syntax"
    yield "padding within", f"{head}=.{body}.{signature}", "token-syntax"
    yield "plus and slash", f"{head}.{body}.{'+/' + signature[2:]}", "token-syntax"
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    loose = signature[:-1] + last[last.index(signature[-1]) ^ 1]
    yield "loose last bits", f"{head}.{body}.{loose}", "token-syntax"
    yield "a blank within", f"{head}. {body}.{signature}", "token-signature"
    yield "a blank that was signed", key.token(None, raw_claims=b"") + " x", "token-syntax"
    yield "trailing data", good + ".x", "token-syntax"
    yield "two parts", f"{head}.{body}", "token-syntax"
    yield "no signature", f"{head}.{body}.", None
    yield "nothing", "", "token-syntax"
    yield "dots", "..", None
    yield "five parts", "a.b.c.d.e", None
    yield "half a signature", f"{head}.{body}.{signature[:40]}", None
    yield "another payload", f"{head}.{tokens.b64(json.dumps(claims(sub='root')))}.{signature}", "token-signature"
    yield "a name twice", key.token(None, raw_claims=json.dumps(claims())[:-1] + ',"sub":"root"}'), "token-claims"
    yield "a header's name twice", key.token(claims(), raw_header='{"alg":"ES256","kid":"k1","alg":"none"}'), None
    yield "nested deep", key.token(None, raw_claims=json.dumps(claims())[:-1] + ',"x":' + "[" * 2000 + "]" * 2000 + "}"), \
        "token-claims"
    yield "nested deep in the header", key.token(claims(), raw_header='{"alg":"ES256","kid":"k1","x":' + "[" * 900 +
                                                 "]" * 900 + "}"), None
    yield "no object", key.token(None, raw_claims="[]"), "token-claims"
    yield "no JSON", key.token(None, raw_claims="hello"), "token-claims"
    yield "no UTF-8", key.token(None, raw_claims=b'{"sub":"\xff"}'), "token-claims"
    yield "too long", key.token(claims(x="y" * 9000)), "token-large"
    yield "encrypted", ".".join([tokens.b64('{"alg":"dir","enc":"A256GCM"}'), "", "AAAA", "AAAA", "AAAA"]), None


@pytest.mark.parametrize("alg", ["ES256", "RS256"])
def test_red_team(issued, app, alg):
    gateway, key = issued(alg)
    other = Key(alg)
    before = len(app.asked)
    with gateway.connect() as raw:
        for name, token, label in attacks(key, other):
            got = raw.request("GET", "/", bearer(token))
            assert got.status == 401, (name, got)
            assert got.get("stateway-error").startswith("token-"), (name, got)
            if label:
                assert got.get("stateway-error") == label, (name, got)
            challenge = got.get("www-authenticate")
            assert challenge.startswith('Bearer realm="shop", error="invalid_token"'), (name, got)
            assert not token or token[:24] not in got.head.decode("latin-1") + got.body.decode(), name
        assert len(app.asked) == before, "no app saw any of them"
        assert raw.request("GET", "/", bearer(key.token(claims()))).status == 200, "and it goes on"


def test_edges_of_time(issued):
    gateway, key = issued()
    now = int(time.time())
    for good in (claims(exp=now - 20), claims(nbf=now + 20), claims(iat=now + 20), claims(exp=now + 60.5),
                 claims(aud=["other", "shop"]), claims(iat=None), claims(sub=None)):
        assert gateway.get("/", headers=bearer(key.token(good))).status == 200, good


def test_age_and_type(issued):
    gateway, key = issued(**{"max-age": "60s", "type": "at+jwt"})
    now = int(time.time())
    at = {"typ": "at+jwt"}
    for made, status, label in ((key.token(claims(), at), 200, None),
                                (key.token(claims(), {"typ": "application/AT+JWT"}), 200, None),
                                (key.token(claims()), 401, "token-typ"),
                                (key.token(claims(), {"typ": None}), 401, "token-typ"),
                                (key.token(claims(iat=now - 100), at), 401, "token-old"),
                                (key.token(claims(iat=None), at), 401, None)):
        got = gateway.get("/", headers=bearer(made))
        assert got.status == status and (label is None or got.get("stateway-error") == label), got


def test_a_token_of_a_megabyte(issued):
    gateway, key = issued()
    with gateway.connect() as raw:
        raw.send("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ")
        try:
            raw.send(b"A" * (1 << 20) + b"\r\n\r\n")
        except OSError:
            pass
        try:
            assert raw.read().status in (401, 431)
        except (EOFError, OSError):
            pass
    assert gateway.get("/", headers=bearer("A" * 20000)).get("stateway-error") == "token-large"
    assert gateway.get("/", headers=bearer(key.token(claims()))).status == 200


# ---- minted ----


def minting(app, tmp_path, deliver="cookie", mint=None, **section):
    section = {"from": "cookie.login" if deliver == "cookie" else "bearer", "issuer": "https://shop.example",
               "audience": ["shop"], "mint": {"deliver": deliver, **(mint or {})}, **section}
    return config(app, section)


class Client:
    """Somebody who keeps what he is given: a cookie, or a token for the header."""

    def __init__(self, gateway, cookies=None, token=None):
        self.gateway, self.cookies, self.token = gateway, dict(cookies or {}), token

    def say(self, *headers, method="POST", send=(), status=200):
        send = [("X-Say", json.dumps(headers)), *send] + (bearer(self.token) if self.token else [])
        got = self.gateway.request(method, "/", send, b"" if method == "POST" else None,
                                   cookies=self.cookies if not self.token else None)
        assert got.status == status, got
        if got.get("authorization"):
            self.token = got.get("authorization").removeprefix("Bearer ")
        self.got = got
        return got

    def set(self, state, *headers, **more):
        return self.say(("Stateway-Set", json.dumps(state)), *headers, **more)

    def told(self, **more):
        return self.say(method="GET", **more).json()

    def state(self, **more):
        text = self.told(**more).get("stateway-state")
        return None if text is None else json.loads(text)

    def copy(self):
        return Client(self.gateway, self.cookies, self.token)


@pytest.mark.parametrize("deliver", ["cookie", "header"])
@pytest.mark.parametrize("algorithm", ["ed25519", "es256", "hs256"])
def test_mint(app, tmp_path, deliver, algorithm):
    with Gateway(minting(app, tmp_path, deliver, {"algorithm": algorithm})) as gateway:
        c = Client(gateway)
        told = c.told()
        assert told["stateway-state-info"] == "absent" and told["stateway-verdict"] == "fresh"
        assert not c.got.all("set-cookie") and not c.got.get("authorization"), "nothing is made for nothing"
        got = c.set({"n": 1, "e": "\u20ac"}, ("Stateway-Subject", "alice"))
        assert got.get("stateway-verdict") == "updated"
        assert "private" in got.get("cache-control") or "no-store" in got.get("cache-control")
        if deliver == "cookie":
            assert "HttpOnly" in got.get("set-cookie") and "SameSite=Lax" in got.get("set-cookie")
        token = c.token or c.cookies["login"]
        said = claims_of(token)
        now = time.time()
        assert said["iss"] == "https://shop.example" and said["aud"] == "shop" and said["sub"] == "alice"
        assert said["state"] == {"n": 1, "e": "\u20ac"} and len(tokens.unb64(said["jti"])) == 16
        assert abs(said["iat"] - now) < 5 and said["iat"] < said["exp"] <= said["end"]
        assert header_of(token)["typ"] == "JWT"
        keys = gateway.get("/.well-known/jwks.json")
        assert keys.status == 200 and keys.get("cache-control") == "public, max-age=300"
        assert '"d"' not in keys.body.decode() and '"k"' not in keys.body.decode()
        if algorithm == "hs256":
            assert keys.json() == {"keys": []}, "a secret is not shown"
        else:
            assert verifies(token, keys.json()) and len(keys.json()["keys"]) == 1
        told = c.told()
        assert json.loads(told["stateway-state"]) == {"n": 1, "e": "\u20ac"}
        assert "login" not in told.get("cookie", "")
        assert not c.got.all("set-cookie"), "unchanged: not sent again"
        c.say(("Stateway-Patch", '{"n":2,"e":null}'))
        assert c.state() == {"n": 2}
        again = claims_of(c.token or c.cookies["login"])
        assert (again["jti"], again["end"], again["sub"]) == (said["jti"], said["end"], "alice")
        version = c.told()["stateway-version"]
        assert version != told["stateway-version"]
        c.set({}, ("Stateway-Expect", told["stateway-version"]), status=409)
        c.set({"n": 3}, ("Stateway-Expect", version))
        assert c.state() == {"n": 3}
        c.set({"n": 4}, send=[("X-Status", "500")], status=500)
        assert c.state() == {"n": 3}
        # it outlives the gateway
        gateway.kill_gateway()
        assert c.state() == {"n": 3}


def test_jwks_of_its_own(app, tmp_path):
    with Gateway(minting(app, tmp_path)) as gateway:
        assert gateway.request("HEAD", "/.well-known/jwks.json").body == b""
        got = gateway.post("/.well-known/jwks.json")
        assert got.status == 405 and got.get("allow") == "GET, HEAD"
    own = minting(app, tmp_path)
    own["routes"].append({"path": "/.well-known/jwks.json", "app": "shop"})
    with Gateway(own) as gateway:
        assert gateway.get("/.well-known/jwks.json").json()["target"] == "/.well-known/jwks.json", "the user's route wins"
    with Gateway({"apps": {"shop": {"servers": [app.address]}}, "routes": [{"path": "/*", "app": "shop"}]}) as gateway:
        assert "target" in gateway.get("/.well-known/jwks.json").json(), "nobody mints: nothing to show"


@pytest.mark.parametrize("deliver", ["cookie", "header"])
def test_logout(app, tmp_path, deliver):
    with Gateway(minting(app, tmp_path, deliver)) as gateway:
        c = Client(gateway)
        c.set({"n": 1}, ("Stateway-Subject", "alice"))
        thief = c.copy()
        assert thief.state() == {"n": 1}
        got = c.say(("Stateway-Delete", "?1"))
        assert got.get("stateway-verdict") == "revoked"
        if deliver == "cookie":
            assert c.cookies["login"] == "" and "Max-Age=0" in got.get("set-cookie")
            told = thief.copy().told()
            assert told["stateway-verdict"] == "revoked" and "stateway-state" not in told
        else:
            assert thief.copy().say(method="GET", status=401).get("stateway-error") == "token-revoked"
        gateway.kill_gateway()
        if deliver == "cookie":
            assert thief.state() is None and thief.cookies["login"] == "", "dead for good, and cleared"
        else:
            thief.say(method="GET", status=401)
        fresh = Client(gateway)
        fresh.set({"n": 9}, ("Stateway-Subject", "alice"))
        assert fresh.state() == {"n": 9}, "he may come back"
        again = Client(gateway)
        again.say(("Stateway-Delete", "?1"))  # nothing to end is no error


def test_a_rewritten_signature_is_as_dead(app, tmp_path):
    """ES256: who knows one signature knows another. The denylist goes by issuer and jti."""
    with Gateway(minting(app, tmp_path, "header", {"algorithm": "es256"})) as gateway:
        c = Client(gateway)
        c.set({"n": 1})
        twin = Client(gateway, token=malleated(c.token))
        assert twin.token != c.token and twin.state() == {"n": 1}, "it is as good as the first"
        c.say(("Stateway-Delete", "?1"))
        for token in (c.token, twin.token):
            assert Client(gateway, token=token).say(method="GET", status=401).get("stateway-error") == "token-revoked"


def test_logout_wins_over_slower_requests(app, tmp_path):
    """A request that began before the logout and ends after it: no update, no living token."""
    from concurrent.futures import ThreadPoolExecutor
    with Gateway(minting(app, tmp_path, mint={"life": "10s", "renew": "1s"})) as gateway, ThreadPoolExecutor(4) as pool:
        c = Client(gateway)
        c.set({"n": 1}, ("Stateway-Subject", "alice"))
        time.sleep(1.2)  # a renewal is due as well
        slow = [("X-Slow", "0.6")]
        writer, renewer, login, reader = c.copy(), c.copy(), c.copy(), c.copy()
        running = [pool.submit(writer.set, {"n": 2}, send=slow, status=409),
                   pool.submit(renewer.say, ("Stateway-Renew", "?1"), send=slow, status=409),
                   pool.submit(login.set, {"n": 3}, ("Stateway-Subject", "bob"), send=slow, status=409),
                   pool.submit(reader.say, method="GET", send=slow)]
        time.sleep(0.2)
        c.say(("Stateway-Delete", "?1"))
        for job in running:
            job.result()
        for one in (writer, renewer, login):
            assert one.got.get("stateway-error") == "state-gone" and not one.got.all("set-cookie")
        assert not reader.got.all("set-cookie"), "the silent renewal is not made"
        for one in (writer, renewer, login, reader):
            assert one.state() is None


def test_renew_ends_the_old_one(app, tmp_path):
    with Gateway(minting(app, tmp_path)) as gateway:
        c = Client(gateway)
        c.set({"n": 1})
        old, before = c.copy(), claims_of(c.cookies["login"])
        c.say(("Stateway-Renew", "?1"))
        after = claims_of(c.cookies["login"])
        assert after["jti"] != before["jti"] and after["state"] == {"n": 1}
        assert old.state() is None and c.state() == {"n": 1}
        old = c.copy()
        c.say(("Stateway-Subject", "alice"))  # a login
        assert claims_of(c.cookies["login"])["sub"] == "alice" and old.state() is None
        same = claims_of(c.cookies["login"])["jti"]
        c.say(("Stateway-Subject", "alice"))
        assert claims_of(c.cookies["login"])["jti"] == same, "the same subject is no change"
        c.say(("Stateway-Subject", ""))
        assert "sub" not in claims_of(c.cookies["login"])
        fresh = Client(gateway)
        fresh.say(("Stateway-Subject", "bob"))
        assert fresh.state() == {}, "a login alone makes a token"


def test_silent_renewal_and_the_absolute_end(app, tmp_path):
    with Gateway(minting(app, tmp_path, mint={"life": "3s", "renew": "1s", "absolute": "5s"}, skew="0s")) as gateway:
        c = Client(gateway)
        c.set({"n": 1})
        first = claims_of(c.cookies["login"])
        assert first["exp"] == first["iat"] + 3 and first["end"] == first["iat"] + 5
        end = time.time() + 4
        while time.time() < end:
            assert c.state() == {"n": 1}
            time.sleep(0.3)
        last = claims_of(c.cookies["login"])
        assert last["iat"] > first["iat"] and last["exp"] <= last["end"] == first["end"]
        assert last["jti"] == first["jti"]
        time.sleep(2.2)
        told = c.told()
        assert told["stateway-verdict"] == "expired" and "stateway-state" not in told
        assert c.cookies["login"] == ""


def test_what_does_not_fit(app, tmp_path):
    for deliver, fits, too_much in (("cookie", 2400, 3100), ("header", 5000, 7000)):
        with Gateway(minting(app, tmp_path, deliver)) as gateway:
            c = Client(gateway)
            c.set({"much": "x" * fits}, ("Stateway-Subject", "alice"))
            got = c.copy().set({"much": "x" * too_much}, status=502)
            assert got.get("stateway-error") == "mint-large" and not got.all("set-cookie")
            c.copy().say(("Stateway-Patch", json.dumps({"more": "x" * too_much})), status=502)
            c.copy().set({"much": "x" * 9000}, status=502)
            kept = c.state()
            assert kept == {"much": "x" * fits}


def test_what_is_refused_of_an_app(app, tmp_path):
    with Gateway(minting(app, tmp_path)) as gateway:
        c = Client(gateway)
        c.set({"n": 1})
        for headers in ([("Stateway-Alarm", "in=1000")], [("Stateway-Set", "[1]")], [("Stateway-Set", "{")],
                        [("Stateway-Set", "{}"), ("Stateway-Delete", "?1")], [("Stateway-Subject", "\u00e9")]):
            assert c.copy().say(*headers, status=502).get("stateway-error").startswith("update-"), headers
        assert c.state() == {"n": 1}


def test_a_token_of_one_route_is_none_of_another(app, tmp_path):
    """Two routes mint with one ring: issuer and audience keep their tokens apart."""
    both = minting(app, tmp_path, "header")
    both["routes"][0]["path"] = "/a/*"
    both["routes"].append(json.loads(json.dumps(both["routes"][0])))
    both["routes"][1]["path"] = "/b/*"
    both["routes"][1]["token"]["audience"] = ["admin"]
    with Gateway(both) as gateway:
        got = gateway.post("/a/x", headers=[("X-Say", '[["Stateway-Set","{}"]]')])
        token = got.get("authorization").removeprefix("Bearer ")
        assert gateway.get("/a/x", headers=bearer(token)).status == 200
        assert gateway.get("/b/x", headers=bearer(token)).get("stateway-error") == "token-audience"


def test_stolen_and_forged_cookies(app, tmp_path):
    with Gateway(minting(app, tmp_path)) as gateway:
        c = Client(gateway)
        c.set({"n": 1}, ("Stateway-Subject", "alice"))
        head, body, signature = c.cookies["login"].split(".")
        forged = {**claims_of(c.cookies["login"]), "state": {"n": 1000}}
        for token in (f"{head}.{tokens.b64(json.dumps(forged))}.{signature}", f"{head}.{body}.", "x", "..",
                      Key("HS256").token(forged), tokens.b64('{"alg":"none"}') + f".{body}."):
            told = Client(gateway, {"login": token})
            assert told.state() is None and told.cookies["login"] == "", token


# ---- phantom ----


def test_phantom(app, tmp_path):
    phantom = {"issuer": "https://gw.example", "audience": "shop-internal", "life": "4s"}
    made = {"apps": {"shop": {"servers": [app.address]}},
            "routes": [{"path": "/*", "app": "shop", "state": "session", "session": {"phantom": phantom}}]}
    with Gateway(made) as gateway:
        c = Client(gateway)
        forged = [("Authorization", "Bearer forged"), ("authorization_", "x")]
        assert "authorization" not in c.told(send=forged[:1]), "nobody is logged in, and no client says otherwise"
        c.set({"n": 1})
        assert "authorization" not in c.told(send=forged[:1]), "a state without a subject is nobody's"
        c.say(("Stateway-Subject", "alice"))
        told = c.told(send=forged[:1])
        token = told["authorization"].removeprefix("Bearer ")
        said = claims_of(token)
        assert (said["iss"], said["aud"], said["sub"]) == ("https://gw.example", "shop-internal", "alice")
        assert said["sid"] == told["stateway-visitor"] and said["exp"] == said["iat"] + 4
        assert "state" not in said and c.cookies["session" if "session" in c.cookies else next(iter(c.cookies))] not in token
        keys = gateway.get("/.well-known/jwks.json").json()
        assert verifies(token, keys)
        seen = set()
        for _ in range(20):
            seen.add(c.told()["authorization"])
        assert len(seen) <= 4, "not signed for each request: each worker keeps one for half of its life"
        time.sleep(2.5)
        assert claims_of(c.told()["authorization"].removeprefix("Bearer "))["iat"] > said["iat"]
        other = Client(gateway)
        other.set({}, ("Stateway-Subject", "bob"))
        assert claims_of(other.told()["authorization"].removeprefix("Bearer "))["sub"] == "bob"
        c.say(("Stateway-Delete", "?1"))
        assert "authorization" not in c.told()


# ---- ended by others ----


def cut_off(gateway, subject):
    assert gateway.admin("DELETE", f"/v1/subjects/{subject}").status in (200, 204)


def test_a_cut_off_ends_all_tokens_of_a_subject(app, tmp_path, issued):
    with Gateway(minting(app, tmp_path)) as gateway:
        c, other = Client(gateway), Client(gateway)
        c.set({"n": 1}, ("Stateway-Subject", "alice"))
        other.set({"n": 2}, ("Stateway-Subject", "bob"))
        old = c.copy()
        time.sleep(0.01)
        cut_off(gateway, "alice")
        assert c.told()["stateway-verdict"] == "revoked" and other.state() == {"n": 2}
        time.sleep(0.01)
        c = Client(gateway)
        c.set({"n": 3}, ("Stateway-Subject", "alice"))
        assert c.state() == {"n": 3}, "a login in the same second is a new one: it says when, to the millisecond"
        assert old.state() is None
    gateway, key = issued()
    before = key.token(claims(sub="carol"))
    undated = key.token(claims(sub="carol", iat=None))
    assert gateway.get("/", headers=bearer(before)).status == 200
    cut_off(gateway, "carol")
    for token in (before, undated):
        assert gateway.get("/", headers=bearer(token)).get("stateway-error") == "token-revoked"
    time.sleep(1.1)
    assert gateway.get("/", headers=bearer(key.token(claims(sub="carol")))).status == 200
    assert gateway.get("/", headers=bearer(key.token(claims(sub="carol", iat=None)))).status == 401, \
        "its time is not known"


def test_a_cut_off_wins_over_slower_requests(app, tmp_path):
    from concurrent.futures import ThreadPoolExecutor
    with Gateway(minting(app, tmp_path)) as gateway, ThreadPoolExecutor(2) as pool:
        c = Client(gateway)
        c.set({"n": 1}, ("Stateway-Subject", "alice"))
        slow, renew = c.copy(), c.copy()
        running = [pool.submit(slow.set, {"n": 2}, send=[("X-Slow", "0.5")], status=409),
                   pool.submit(renew.say, ("Stateway-Renew", "?1"), send=[("X-Slow", "0.5")])]
        time.sleep(0.2)
        cut_off(gateway, "alice")
        for job in running:
            job.result()
        assert slow.state() is None and renew.state() is None, "a new name is no new login"


# ---- with the rest ----


def test_envelope(app, tmp_path):
    said = json.dumps({"state": {"set": {"n": "\u20ac"}}, "response": {"status": 201, "body": "made"}})
    origin = Origin(lambda asked, raw: answer(200, said, [("Content-Type", "application/stateway-commit+json")])
                    if asked.method == "POST" else respond(asked, raw))
    with origin, Gateway(minting(origin, tmp_path)) as gateway:
        c = Client(gateway)
        assert c.say(status=201).body == b"made"
        assert c.state() == {"n": "\u20ac"}


def test_idempotency_keys(app, tmp_path):
    made = minting(app, tmp_path, "header")
    made["routes"][0]["idempotency"] = {"mode": "optional", "principal": "header.X-Who"}
    with Gateway(made) as gateway:
        c = Client(gateway)
        key = [("X-Who", "me"), ("Idempotency-Key", "k1")]
        c.set({"n": 1}, ("Stateway-Subject", "alice"), send=key)
        first = c.token
        again = Client(gateway).set({"n": 1}, ("Stateway-Subject", "alice"), send=key)
        assert again.get("idempotent-replayed") == "true" and not again.get("authorization")
        # an end and the record of its key are one commit
        key = [("X-Who", "me"), ("Idempotency-Key", "k2")]
        ended = c.say(("Stateway-Delete", "?1"), send=key)
        assert ended.get("stateway-verdict") == "revoked"
        assert c.say(("Stateway-Delete", "?1"), send=key, status=401).get("stateway-error") == "token-revoked"
        assert first == c.token


class KeyServer:
    """Keys behind a URL, which may fail or take its time."""

    def __init__(self, *keys):
        self.keys, self.status, self.wait, self.fetches = list(keys), 200, 0, 0
        self.origin = Origin(self._respond)
        self.url = f"http://{self.origin.address}/jwks"

    def _respond(self, asked, raw):
        self.fetches += 1
        time.sleep(self.wait)
        return answer(self.status, json.dumps(jwks(*self.keys)), [("Content-Type", "application/json"),
                                                                  ("Connection", "close")])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.origin.close()


def test_keys_that_rotate(app, tmp_path):
    one, two, three = Key("ES256", "one"), Key("ES256", "two"), Key("ES256", "three")
    with KeyServer(one) as server, Gateway(config(app, {"keys": server.url})) as gateway:
        assert gateway.get("/", headers=bearer(one.token(claims()))).status == 200
        fetched = server.fetches
        server.keys, server.wait = [one, two], 0.3
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda n: gateway.get("/", headers=bearer(two.token(claims(n=n)))), range(16)))
        assert {a.status for a in answers} == {200}, "the tokens waited for the new key"
        assert server.fetches == fetched + 1, "one fetch for all of them"
        # a flood of unknown ids: each is refused, and the issuer hears next to nothing of it
        for n in range(50):
            got = gateway.get("/", headers=bearer(Key("HS256", f"evil{n}").token(claims())))
            assert got.status == 401 and got.get("stateway-error") in ("token-kid", "token-alg")
        assert server.fetches <= fetched + 2
        # a client that leaves while keys are fetched
        assert three.kid not in [k.kid for k in server.keys]


def test_a_client_that_leaves_while_keys_are_fetched(app, tmp_path):
    one, two = Key("ES256", "one"), Key("ES256", "two")
    with KeyServer(one) as server, Gateway(config(app, {"keys": server.url})) as gateway:
        before = len(app.asked)
        server.wait = 1
        raws = [gateway.connect() for _ in range(4)]
        for raw in raws:
            raw.send(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nAuthorization: Bearer {two.token(claims())}\r\n\r\nhe")
        time.sleep(0.3)
        raws[0].close()
        raws[1].reset()
        assert raws[2].send("llo").read("POST").status == 401
        raws[2].close()
        raws[3].close()
        server.wait = 0
        assert gateway.get("/", headers=bearer(one.token(claims()))).status == 200
        assert len(app.asked) == before + 1


def test_no_keys_yet(app, tmp_path):
    key = Key("ES256")
    with KeyServer(key) as server:
        server.status = 500
        with Gateway(config(app, {"keys": server.url})) as gateway:
            got = gateway.get("/", headers=bearer(key.token(claims())))
            assert got.status == 503 and got.get("stateway-error") == "token-keys" and got.get("retry-after")
            assert not got.all("www-authenticate"), "it is not the token's fault"
            assert gateway.get("/").status == 401
            server.status = 200
            from harness import wait_for
            wait_for(lambda: gateway.get("/", headers=bearer(key.token(claims()))).status == 200)
            server.status = 500
            assert gateway.get("/", headers=bearer(key.token(claims()))).status == 200, "the last good keys stand"
