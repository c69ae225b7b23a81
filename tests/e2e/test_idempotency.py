"""Idempotency-Key: done once, answered as often as asked; or it is said that nobody knows.

The app (an Origin) counts what it was asked to do, by path and key, before it answers.
"""
import collections
import concurrent.futures
import json
import os
import random
import re
import signal
import threading
import time
import uuid

import pytest

import tokens
from harness import Origin, answer, request_bytes, wait_for

WHO = "Bearer ada"


class App(Origin):
    """on(act): a path on which act(asked, raw, n) answers; n: how often this key came there, from 1."""

    def __init__(self, path=None):
        self.acts, self.done, self.count_lock = {}, collections.Counter(), threading.Lock()
        self.otherwise = lambda asked, raw, n: answer(200, f"number {n}")
        super().__init__(self._act, path)

    def _act(self, asked, raw):
        if asked.get("user-agent") == "stateway-health":
            return answer(200, b"")
        key = (asked.target.split("?")[0], asked.get("idempotency-key"))
        with self.count_lock:
            self.done[key] += 1
            n = self.done[key]
        return self.acts.get(key[0], self.otherwise)(asked, raw, n)

    def on(self, act):
        path = f"/{uuid.uuid4().hex[:12]}"
        self.acts[path] = act
        return path

    def times(self, path, key):
        return self.done[(path, key)]

    def last(self, path):
        return [a for a in self.asked if a.target.split("?")[0] == path][-1]


def config(app, route=None, **idempotency):
    settings = {"mode": "required", "principal": "header.Authorization", **idempotency}
    return {"apps": {"a": {"servers": [app.address]}},
            "routes": [{"path": "/*", "app": "a", "idempotency": settings, **(route or {})}]}


VARIANTS = {  # routes by the first segment of the path; the app sees the rest
    "d": {}, "retry": {"unknown": "retry"}, "store": {"failed": "store"}, "release": {"failed": "release"},
    "wait": {"wait": "5s"}, "short": {"wait": "300ms"}, "optional": {"mode": "optional"}, "small": {"max-answer": 100},
    "brief": {"retention": "1s"}, "address": {"principal": "address"},
}


@pytest.fixture(scope="module")
def app():
    origin = App()
    yield origin
    origin.close()


@pytest.fixture(scope="module")
def world(app):
    """One gateway with a route a variant."""
    from harness import Gateway
    routes = [{"path": f"/{name}/*", "strip": f"/{name}", "app": "a",
               "idempotency": {"mode": "required", "principal": "header.Authorization", **more}}
              for name, more in VARIANTS.items()]
    routes.append({"path": "/off/*", "strip": "/off", "app": "a"})
    with Gateway({"apps": {"a": {"servers": [app.address], "limits": {"connections": 300, "pending": 300}}},
                  "routes": routes,
                  "timeouts": {"response": "2s"}}) as gateway:
        yield gateway


def key():
    return str(uuid.uuid4())


def post(gateway, path, k, body=b'{"amount":1}', who=WHO, headers=(), method="POST", **options):
    pairs = list(headers)
    if k is not None:
        pairs.append(("Idempotency-Key", k))
    if who is not None:
        pairs.append(("Authorization", who))
    if not any(name.lower() == "content-type" for name, _ in pairs):
        pairs.append(("Content-Type", "application/json"))
    return gateway.request(method, path, pairs, body, **options)


def problem(got, status, label):
    """An error of ours about the key."""
    assert (got.status, got.get("stateway-error")) == (status, label), got
    assert got.get("content-type") == "application/problem+json"
    assert got.get("content-language") == "en"
    assert got.get("idempotent-replayed") is None
    document = got.json()
    assert document["status"] == status
    assert document["title"] and document["type"].startswith("http")
    return document


def settled(*args, **options):
    """The answer to a request whose first try just failed: how that ended may still be on its way to the disk."""
    deadline = time.monotonic() + 3
    while True:
        got = post(*args, **options)
        if got.get("stateway-error") != "idempotency-running" or time.monotonic() > deadline:
            return got
        running(got)
        time.sleep(0.01)


def running(got):
    problem(got, 409, "idempotency-running")
    assert int(got.get("retry-after")) >= 1


def unknown(got):
    assert problem(got, 409, "idempotency-unknown")["state"] == "unknown"
    assert got.get("retry-after") is None


def replayed(got, first):
    """Byte for byte the first one's, but for what belongs to a moment."""
    assert (got.status, got.body) == (first.status, first.body), got
    assert got.get("idempotent-replayed") == "true"
    assert first.get("idempotent-replayed") is None
    skip = {"date", "set-cookie", "idempotent-replayed", "connection", "content-length", "transfer-encoding",
            "via", "server",
            "cache-control", "grip-hold"}

    def kept(a):
        return sorted((k.lower(), v) for k, v in a.headers if k.lower() not in skip)
    assert kept(got) == kept(first)


# ---- the first and the next ones ----


def test_replay_is_the_first_answer(world, app):
    body = bytes(range(256)) * 40

    def act(asked, raw, n):
        return answer(201, body, [("Content-Type", "application/x-odd; a=b"), ("Location", f"/made/{n}"),
                                  ("X-Number", str(n)),
                                  ("X-Twice", "one"), ("X-Twice", "two"), ("Set-Cookie", f"session={n}"),
                                  ("Keep-Alive", "timeout=5"), ("X-Hop", "1"), ("Connection", "X-Hop"),
                                  ("Stateway-Verdict", "none"), ("Grip-Hold", "stream")], "Made It")
    path, k = app.on(act), key()
    first = post(world, "/d" + path, k)
    assert (first.status, first.body, first.get("location")) == (201, body, "/made/1")
    for _ in range(3):
        got = post(world, "/d" + path, k)
        replayed(got, first)
        assert got.reason == "Made It"
        assert got.all("x-twice") == ["one", "two"]
        assert got.get("date") and len(got.all("date")) == 1
        assert not got.all("set-cookie")
        for name in ("keep-alive", "x-hop", "stateway-verdict", "grip-hold"):
            assert got.get(name) is None, name
        assert got.get("cache-control") == "no-store"
    assert app.times(path, k) == 1


def test_cache_control_of_the_app_is_kept(world, app):
    path, k = app.on(lambda *_: answer(200, b"x", [("Cache-Control", "private, max-age=3")])), key()
    post(world, "/d" + path, k)
    assert post(world, "/d" + path, k).all("cache-control") == ["private, max-age=3"]


@pytest.mark.parametrize("data", [
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nuntil the end",
    b"HTTP/1.1 303 See Other\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n",
], ids=["chunked", "204", "empty", "interim", "until the end", "303"])
def test_framings(world, app, data):
    def act(asked, raw, n):
        raw.send(data)
        if b"close" in data:
            raw.close()
    path, k = app.on(act), key()
    first = post(world, "/d" + path, k)
    assert first.complete
    replayed(post(world, "/d" + path, k), first)
    replayed(post(world, "/d" + path, k), first)
    assert app.times(path, k) == 1


@pytest.mark.parametrize("status", [200, 202, 301, 400, 402, 404, 410, 418, 422])
def test_what_is_kept(world, app, status):
    path, k = app.on(lambda asked, raw, n: answer(status, f"number {n}")), key()
    first = post(world, "/d" + path, k)
    assert first.status == status
    replayed(post(world, "/d" + path, k), first)
    assert app.times(path, k) == 1


@pytest.mark.parametrize("status", [408, 409, 423, 425, 429])
def test_what_says_not_now(world, app, status):
    path, k = app.on(lambda asked, raw, n: answer(status if n == 1 else 200, f"number {n}")), key()
    got = post(world, "/d" + path, k)
    assert (got.status, got.body) == (status, b"number 1")
    second = post(world, "/d" + path, k)
    assert (second.status, second.body, second.get("idempotent-replayed")) == (200, b"number 2", None)
    replayed(post(world, "/d" + path, k), second)
    assert app.times(path, k) == 2


@pytest.mark.parametrize("status", [500, 502, 503])
def test_5xx_of_the_app(world, app, status):
    path = app.on(lambda asked, raw, n: answer(status, f"number {n}"))
    k = key()
    first = post(world, "/d" + path, k)
    assert (first.status, first.body) == (status, b"number 1")
    for _ in range(2):
        unknown(post(world, "/d" + path, k))
    assert app.times(path, k) == 1
    k = key()
    first = post(world, "/store" + path, k)
    replayed(post(world, "/store" + path, k), first)
    assert app.times(path, k) == 1
    for base, attempts in (("/retry", ["1", "2", "3"]), ("/release", ["1", "1", "1"])):
        k = key()
        for n, attempt in enumerate(attempts, 1):
            assert post(world, base + path, k).body == f"number {n}".encode()
            assert app.last(path).get("stateway-idempotency") == f"attempt={attempt}"


def test_the_app_overrides(world, app):
    path = app.on(lambda asked, raw, n: answer(503, f"number {n}", [("Stateway-Idempotency", "release")]))
    k = key()
    first = post(world, "/d" + path, k)
    assert first.get("stateway-idempotency") is None
    assert post(world, "/d" + path, k).body == b"number 2"
    path, k = app.on(lambda asked, raw, n: answer(500, f"number {n}", [("Stateway-Idempotency", "store")])), key()
    first = post(world, "/d" + path, k)
    replayed(post(world, "/d" + path, k), first)
    path, k = app.on(lambda asked, raw, n: answer(200, f"number {n}", [("Stateway-Idempotency", "release")])), key()
    assert [post(world, "/d" + path, k).body for _ in range(2)] == [b"number 1", b"number 2"]


def test_what_the_app_sees(world, app):
    path, k = app.on(lambda *_: answer()), f'"{key()}"; a=1'
    post(world, "/d" + path, k, headers=[("Stateway-Idempotency", "attempt=77")])
    asked = app.last(path)
    assert asked.all("idempotency-key") == [k]
    assert asked.all("stateway-idempotency") == ["attempt=1"]
    post(world, "/off" + path, k)
    assert app.last(path).get("idempotency-key") == k
    assert app.last(path).get("stateway-idempotency") is None


@pytest.mark.parametrize("method, counts", [("PATCH", True), ("PUT", False), ("DELETE", False), ("GET", False),
                                            ("OPTIONS", False)])
def test_methods(world, app, method, counts):
    path, k = app.on(lambda asked, raw, n: answer(200, f"number {n}")), key()
    first = post(world, "/d" + path, k, method=method, body=b"" if method in ("PUT", "PATCH") else None)
    second = post(world, "/d" + path, k, method=method, body=b"" if method in ("PUT", "PATCH") else None)
    assert first.body == b"number 1"
    assert second.body == (b"number 1" if counts else b"number 2")
    assert (second.get("idempotent-replayed") == "true") == counts
    assert post(world, "/d" + path, None, method=method).status == (400 if counts else 200)


# ---- the key ----


def test_quoted_or_not_is_the_same(world, app):
    path, k = app.on(lambda asked, raw, n: answer(200, f"number {n}")), key()
    first = post(world, "/d" + path, k)
    for spelling in (f'"{k}"', f'  "{k}"  ', f'"{k}";a=1', f'"{k}" ', f'"{k}"; x="y, z"', k):
        replayed(post(world, "/d" + path, spelling), first)
    k = 'a\\b"c'
    first = post(world, "/d" + path, '"a\\\\b\\"c"')
    replayed(post(world, "/d" + path, '"a\\\\b\\"c"'), first)
    assert post(world, "/d" + path, '"a b"').status == 200


@pytest.mark.parametrize("bad", ["", '""', "a b", "a,b", "a;b", 'a"b', '"a', '"a"b', '"a\\n"', '"a", "b"',
                                 "x" * 256, f'"{"x" * 256}"',
                                 "k\u00e9", '"\u00e9"'])
def test_malformed_keys(world, app, bad):
    path = app.on(lambda *_: answer())
    problem(post(world, "/d" + path, bad), 400, "idempotency-key-malformed")
    assert not [a for a in app.asked if a.target == path]


def test_longest_key_and_no_key(world, app):
    path = app.on(lambda asked, raw, n: answer(200, f"number {n}"))
    for k in ("x" * 255, f'"{"y" * 255}"'):
        first = post(world, "/d" + path, k)
        replayed(post(world, "/d" + path, k), first)
    problem(post(world, "/d" + path, None), 400, "idempotency-key-missing")
    got = post(world, "/optional" + path, None)
    assert (got.status, got.get("idempotent-replayed")) == (200, None)
    problem(post(world, "/optional" + path, "a b"), 400, "idempotency-key-malformed")
    k = key()
    first = post(world, "/optional" + path, k)
    replayed(post(world, "/optional" + path, k), first)


@pytest.mark.parametrize("pair", [("k1", "k2"), ("k1", "k1")])
def test_two_lines(world, app, pair):
    path = app.on(lambda *_: answer())
    got = post(world, "/d" + path, pair[0], headers=[("Idempotency-Key", pair[1])])
    problem(got, 400, "idempotency-key-malformed")
    assert not [a for a in app.asked if a.target == path]


def test_an_underscore_is_not_the_header(world, app):
    """Idempotency_Key is the same CGI variable to many an app: it must not carry another key past the gateway."""
    path, k = app.on(lambda asked, raw, n: answer(200, f"number {n}")), key()
    got = post(world, "/d" + path, k, headers=[("Idempotency_Key", "other")])
    assert got.status in (200, 400)
    if got.status == 200:
        assert not app.last(path).all("idempotency_key")


# ---- whose it is ----


def test_principals_are_apart(world, app):
    path, k = app.on(lambda asked, raw, n: answer(200, asked.get("authorization"))), key()
    mine, other = post(world, "/d" + path, k, who="Bearer mine"), post(world, "/d" + path, k, who="Bearer other")
    assert (mine.body, other.body) == (b"Bearer mine", b"Bearer other")
    assert other.get("idempotent-replayed") is None
    replayed(post(world, "/d" + path, k, who="Bearer mine"), mine)
    replayed(post(world, "/d" + path, k, who="Bearer other"), other)
    before = len(app.asked)
    problem(post(world, "/d" + path, k, who=None), 400, "idempotency-principal")
    problem(post(world, "/d" + path, k, who="Bearer mine", headers=[("Authorization", "Bearer other")]), 400,
            "idempotency-principal")
    problem(post(world, "/d" + path, k, who=""), 400, "idempotency-principal")
    assert len(app.asked) == before


def test_routes_are_apart(world, app):
    path, k = app.on(lambda asked, raw, n: answer(200, f"number {n}")), key()
    assert [post(world, base + path, k).body for base in ("/d", "/retry", "/d")] == [b"number 1", b"number 2",
            b"number 1"]


def test_by_address(world, app):
    path, k = app.on(lambda asked, raw, n: answer(200, f"number {n}")), key()
    first = post(world, "/address" + path, k, who=None)
    replayed(post(world, "/address" + path, k, who="Bearer x"), first)
    got = post(world, "/address" + path, k, who=None, headers=[("X-Forwarded-For", "192.0.2.7")])
    replayed(got, first)  # nobody is trusted here


def test_by_the_subject_of_a_token(gateway, app, tmp_path):
    """A token that was refreshed is the same person; another person's is not, whatever key he sends."""
    signer, issuer = tokens.Key("ES256"), "https://id.example"
    (tmp_path / "keys.json").write_text(json.dumps(tokens.jwks(signer)))
    g = gateway(config(app, {"state": "token", "token": {"issuer": issuer, "audience": ["shop"], "required": "off",
                                                         "keys": str(tmp_path / "keys.json")}},
                       principal="claim.sub"))

    def ask(k, **said):
        return post(g, "/", k, who=f"Bearer {signer.token(tokens.claims(**said))}")
    k = key()
    first = ask(k, sub="ada", jti="1")
    assert first.status == 200
    replayed(ask(k, sub="ada", jti="2"), first)
    assert ask(k, sub="bob").get("idempotent-replayed") is None
    problem(post(g, "/", k, who=None), 400, "idempotency-principal")


def test_by_visitor(gateway, app):
    path = app.on(lambda asked, raw, n: answer(200, f"number {n}", [("Stateway-Patch", f'{{"n":{n}}}')]))
    g = gateway({"apps": {"a": {"servers": [app.address]}},
                 "routes": [{"path": path, "app": "a", "state": "session", "idempotency": "required"},
                            {"path": "/*", "app": "a", "state": "session"}]})
    k, one, two = key(), {}, {}
    problem(post(g, path, k), 400, "idempotency-principal")  # nobody yet
    setup = app.on(lambda *_: answer(200, b"", [("Stateway-Set", "{}")]))
    for cookies in (one, two):
        assert post(g, setup, None, cookies=cookies).status == 200
    first = post(g, path, k, cookies=dict(one))
    second = post(g, path, k, cookies=dict(two))
    assert (first.body, second.body) == (b"number 1", b"number 2")
    replayed(post(g, path, k, cookies=dict(one)), first)
    replayed(post(g, path, k, cookies=dict(two)), second)


# ---- another payload ----


CHANGES = [("body", {"body": b'{"amount":2}'}), ("longer", {"body": b'{"amount":1} '}), ("empty", {"body": b""}),
           ("query", {"query": "?a=1"}), ("empty query", {"query": "?"}), ("method", {"method": "PATCH"}),
           ("type", {"headers": [("Content-Type", "text/plain")]}), ("host", {"headers": [("Host", "other.example")]})]


@pytest.mark.parametrize("change", [c for _, c in CHANGES], ids=[n for n, _ in CHANGES])
def test_another_request_with_that_key(world, app, change):
    go = threading.Event()

    def act(asked, raw, n):
        go.wait(10)
        return answer(200, f"number {n}")
    path, k = app.on(act), key()
    query = change.get("query", "")
    more = {name: value for name, value in change.items() if name != "query"}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, world, "/d" + path, k)
        wait_for(lambda: app.times(path, k) == 1)
        problem(post(world, "/d" + path + query, k, **more), 422, "idempotency-reused")  # while it runs
        go.set()
        first = first.result()
    problem(post(world, "/d" + path + query, k, **more), 422, "idempotency-reused")  # and after
    replayed(post(world, "/d" + path, k), first)
    assert app.times(path, k) == 1


def test_another_request_after_an_unknown_outcome(world, app):
    path, k = app.on(lambda *_: answer(500)), key()
    assert post(world, "/d" + path, k).status == 500
    problem(post(world, "/d" + path, k, body=b"other"), 422, "idempotency-reused")
    unknown(post(world, "/d" + path, k))


def test_the_same_request_in_other_clothes(world, app):
    """Parameters of the type, chunks, order and number of other headers: no change."""
    path, k = app.on(lambda asked, raw, n: answer(200, asked.body)), key()
    first = post(world, "/d" + path, k, body=b"hello")
    replayed(post(world, "/d" + path, k, body=b"hello",
                  headers=[("Content-Type", "application/json; charset=utf-8")]), first)
    replayed(post(world, "/d" + path, k, body=b"hello", headers=[("X-More", "1"), ("User-Agent", "other")]), first)
    with world.connect() as raw:
        raw.send(f"POST /d{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {WHO}\r\nIdempotency-Key: {k}\r\n"
                 "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        raw.send("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", cut=1, pause=0.001)
        replayed(raw.read("POST"), first)
    assert app.times(path, k) == 1


def test_body_must_be_held(world, app):
    """The fingerprint needs it whole: what does not fit (limits.replay-buffer, 64 KiB) is 413, and not asked."""
    path = app.on(lambda asked, raw, n: answer(200, str(len(asked.body))))
    k = key()
    got = post(world, "/d" + path, k, body=b"x" * 65536)
    assert (got.status, got.body) == (200, b"65536")
    k = key()
    got = post(world, "/d" + path, k, body=b"x" * 65537)
    assert (got.status, got.get("stateway-error")) == (413, "body-large")
    with world.connect() as raw:
        raw.send(f"POST /d{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {WHO}\r\nIdempotency-Key: {k}\r\n"
                 "Transfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(20):
                raw.send(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
        except OSError:
            pass
        assert raw.read("POST").status == 413
    assert app.times(path, k) == 0
    assert post(world, "/d" + path, k, body=b"x").status == 200  # the key is free


def test_body_that_fills_what_is_held_and_goes_on(world, app):
    """The answer comes, although there was a moment when all that was here fitted exactly."""
    path = app.on(lambda asked, raw, n: answer(200, str(len(asked.body))))
    for size in (65535, 65536, 65537):
        with world.connect(timeout=5) as raw:
            raw.send(f"POST /d{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {WHO}\r\n"
                     f"Idempotency-Key: {key()}\r\nTransfer-Encoding: chunked\r\n\r\n")
            raw.send(b"%x\r\n" % 70000 + b"x" * (size - 1))
            time.sleep(0.1)  # it is taken, and looked at
            raw.send(b"x")
            time.sleep(0.1)
            try:
                raw.send(b"x" * (70000 - size) + b"\r\n0\r\n\r\n")
            except OSError:
                pass
            got = raw.read("POST")
            assert (got.status, got.get("stateway-error")) == (413, "body-large")


def test_expect_continue(world, app):
    path, k = app.on(lambda asked, raw, n: answer(200, asked.body)), key()
    head = request_bytes("POST", "/d" + path, [("Authorization", WHO), ("Idempotency-Key", k), ("Expect",
            "100-continue"),
                                               ("Content-Length", "5")])
    for n in range(2):
        with world.connect() as raw:
            raw.send(head)
            assert raw.read_head().status == 100
            raw.send(b"hello")
            got = raw.read("POST")
            assert (got.status, got.body, got.get("idempotent-replayed")) == (200, b"hello", "true" if n else None)
    assert app.times(path, k) == 1


# ---- at once ----


def test_a_hundred_at_once(world, app, gateway):
    def act(asked, raw, n):
        time.sleep(1.0)
        return answer(200, f"number {n}")
    path, k = app.on(act), key()
    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        got = [f.result() for f in [pool.submit(post, world, "/d" + path, k) for _ in range(100)]]
    assert app.times(path, k) == 1
    first = [g for g in got if g.status == 200 and g.get("idempotent-replayed") is None]
    assert len(first) == 1
    for one in got:
        if one is first[0]:
            continue
        if one.status == 200:
            replayed(one, first[0])
        else:
            running(one)
    replayed(post(world, "/d" + path, k), first[0])


def test_wait_gives_all_the_same(world, app):
    def act(asked, raw, n):
        time.sleep(0.7)
        return answer(200, f"number {n}")
    path, k = app.on(act), key()
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        got = [f.result() for f in [pool.submit(post, world, "/wait" + path, k) for _ in range(50)]]
    assert app.times(path, k) == 1
    assert [g.status for g in got] == [200] * 50
    assert {g.body for g in got} == {b"number 1"}
    assert len([g for g in got if g.get("idempotent-replayed") is None]) == 1


def test_wait_has_an_end(world, app):
    def act(asked, raw, n):
        time.sleep(1.2)
        return answer(200, f"number {n}")
    path, k = app.on(act), key()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, world, "/short" + path, k)
        wait_for(lambda: app.times(path, k) == 1)
        began = time.monotonic()
        running(post(world, "/short" + path, k))
        assert 0.25 < time.monotonic() - began < 1.1
        assert first.result().status == 200


@pytest.mark.parametrize("status, then", [(429, b"number 2"), (500, None)])
def test_who_waited_looks_again(world, app, status, then):
    """The first one left no answer to keep: one of those who waited takes over, or hears that nobody knows."""
    def act(asked, raw, n):
        time.sleep(0.4)
        return answer(status if n == 1 else 200, f"number {n}")
    path, k = app.on(act), key()
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        first = pool.submit(post, world, "/wait" + path, k)
        wait_for(lambda: app.times(path, k) == 1)
        got = [f.result() for f in [pool.submit(post, world, "/wait" + path, k) for _ in range(8)]]
    assert first.result().status == status
    if then:
        assert {g.body for g in got} == {then}
        assert app.times(path, k) == 2
    else:
        for one in got:
            unknown(one)
        assert app.times(path, k) == 1


def test_who_waited_and_left(world, app):
    """Duplicates that give up do not keep the place, nor do they become a second call."""
    def act(asked, raw, n):
        time.sleep(0.8)
        return answer(200, f"number {n}")
    path, k = app.on(act), key()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, world, "/wait" + path, k)
        wait_for(lambda: app.times(path, k) == 1)
        for _ in range(10):
            with world.connect() as raw:
                raw.send(request_bytes("POST", "/wait" + path, [("Authorization", WHO), ("Idempotency-Key", k),
                                                                ("Content-Type", "application/json")], b'{"amount":1}'))
                time.sleep(0.02)
        first = first.result()
    replayed(post(world, "/wait" + path, k), first)
    assert app.times(path, k) == 1


# ---- clients, apps and stores that fail ----


@pytest.mark.parametrize("how", ["close", "reset"])
def test_client_leaves_and_asks_again(world, app, how):
    def act(asked, raw, n):
        time.sleep(0.5)
        return answer(200, f"number {n}")
    path, k = app.on(act), key()
    raw = world.connect()
    raw.send(request_bytes("POST", "/d" + path, [("Authorization", WHO), ("Idempotency-Key", k),
                                                 ("Content-Type", "application/json")], b'{"amount":1}'))
    wait_for(lambda: app.times(path, k) == 1)
    getattr(raw, how)()

    def got():
        answered = post(world, "/d" + path, k)
        if answered.status == 409:
            running(answered)
            return None
        return answered
    answered = wait_for(got)
    assert (answered.status, answered.body, answered.get("idempotent-replayed")) == (200, b"number 1", "true")
    assert app.times(path, k) == 1


def test_client_leaves_in_the_middle_of_its_body(world, app):
    path, k = app.on(lambda *_: answer()), key()
    with world.connect() as raw:
        raw.send(f"POST /d{path} HTTP/1.1\r\nHost: a\r\nAuthorization: {WHO}\r\nIdempotency-Key: {k}\r\n"
                 "Content-Length: 10\r\n\r\nhalf")
        time.sleep(0.1)
    assert post(world, "/d" + path, k).status == 200
    assert app.times(path, k) == 1


def test_app_too_slow(world, app):
    """timeouts.response: nobody knows. Its late answer changes nothing."""
    def act(asked, raw, n):
        if n == 1:
            time.sleep(2.8)
        return answer(200, f"number {n}")
    path, k = app.on(act), key()
    got = post(world, "/d" + path, k)
    assert (got.status, got.get("stateway-error")) == (504, "app-slow")
    unknown(settled(world, "/d" + path, k))
    time.sleep(1.2)
    unknown(post(world, "/d" + path, k))
    assert app.times(path, k) == 1
    k = key()
    assert post(world, "/retry" + path, k).status == 504
    second = settled(world, "/retry" + path, k)  # while the first one still works
    assert (second.body, app.last(path).get("stateway-idempotency")) == (b"number 2", "attempt=2")
    time.sleep(1.2)
    replayed(post(world, "/retry" + path, k), second)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Le",
                                  b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"])
def test_app_dies_while_it_works(world, app, sent):
    def act(asked, raw, n):
        if n == 1:
            raw.send(sent)
            raw.close()
            return None
        return answer(200, f"number {n}")
    path, k = app.on(act), key()
    got = post(world, "/d" + path, k)
    assert got.status == 502, got
    unknown(settled(world, "/d" + path, k))
    assert app.times(path, k) == 1
    k = key()
    assert post(world, "/retry" + path, k).status == 502
    assert settled(world, "/retry" + path, k).body == b"number 2"


def test_app_that_was_never_reached(gateway, app, tmp_path):
    """No byte of the request was written anywhere: the key is free."""
    path = tmp_path / "app.sock"
    g = gateway({**config(app), "apps": {"a": {"servers": [f"unix:{path}"]}}, "timeouts": {"connect": "300ms"}},
                ready=False)
    k = key()

    def asked():
        try:
            return post(g, "/x", k)
        except OSError:
            return None
    got = wait_for(asked)
    assert got.status == 503, got
    late = App(path)
    try:
        got = wait_for(lambda: (lambda a: a if a.status == 200 else None)(post(g, "/x", k)))
        assert (got.body, late.last("/x").get("stateway-idempotency")) == (b"number 1", "attempt=1")
    finally:
        late.close()


def test_refused_before_the_app_is_no_use_of_the_key(world, app):
    path, k = app.on(lambda *_: answer(200, b"done")), key()
    got = world.request("POST", "/d" + path, [("Authorization", WHO), ("Idempotency-Key", k), ("Content-Length", "5"),
                                              ("Transfer-Encoding", "chunked")], b"")
    assert got.status == 400
    assert post(world, "/d" + path, k).status == 200
    assert app.times(path, k) == 1


def test_store_is_full(gateway, app):
    """No record, no call: a route that needs the key fails closed."""
    fill = app.on(lambda *_: answer(200, b"", [("Stateway-Set", json.dumps({"x": "y" * 3900}))]))
    path = app.on(lambda asked, raw, n: answer(200, "done"))
    g = gateway({"apps": {"a": {"servers": [app.address]}},
                 "routes": [{"path": fill, "app": "a", "state": "session"},
                            {"path": path, "app": "a",
                             "idempotency": {"mode": "required", "principal": "header.Authorization"}}],
                 "limits": {"store": "1MiB", "store-memory": "1MiB"}})
    done = key()
    first = post(g, path, done)
    assert first.status == 200
    wait_for(lambda: post(g, fill, None).status == 503, 60)
    refused = None
    for _ in range(200):  # small records may still find a place between large ones
        k = key()
        got = post(g, path, k)
        if got.status != 200:
            refused = got
            break
    assert refused is not None
    problem(refused, 503, "idempotency-store")
    assert app.times(path, k) == 0
    replayed(post(g, path, done), first)  # reads go on


def unkept(gateway):
    found = re.search(r'stateway_idempotency_total{outcome="unkept"} (\d+)', gateway.admin("GET", "/metrics").body.decode())
    return int(found[1])


@pytest.mark.parametrize("state", ["none", "session", "sticky"])
def test_store_is_full_and_the_route_runs(gateway, app, state):
    """store-down: run: it is done without the promise, said so, and counted. What was kept is still answered."""
    fill = app.on(lambda *_: answer(200, b"", [("Stateway-Set", json.dumps({"x": "y" * 3900}))]))
    path = app.on(lambda asked, raw, n: answer(200, f"number {n}", [("Stateway-Idempotency", "store")]))
    g = gateway({"apps": {"a": {"servers": [app.address]}},
                 "routes": [{"path": fill, "app": "a", "state": "session"},
                            {"path": path, "app": "a", "state": state,
                             "idempotency": {"mode": "required", "principal": "header.Authorization",
                                             "store-down": "run"}}],
                 "limits": {"store": "1MiB", "store-memory": "1MiB"}})
    done = key()
    first = post(g, path, done)
    assert (first.status, first.get("stateway-idempotency")) == (200, None)
    assert unkept(g) == 0
    wait_for(lambda: post(g, fill, None).status == 503, 60)
    k, got = None, None
    for _ in range(200):  # small records may still find a place between large ones
        k = key()
        got = post(g, path, k)
        assert got.status == 200
        if got.get("stateway-idempotency"):
            break
    assert got.all("stateway-idempotency") == ["not-kept"]
    assert app.last(path).get("stateway-idempotency") is None  # the app is promised nothing either
    assert unkept(g) == 1
    again = post(g, path, k)
    assert (again.status, again.get("idempotent-replayed")) == (200, None)
    assert app.times(path, k) == 2
    replayed(post(g, path, done), first)  # reads go on
    problem(post(g, path, done, body=b"other"), 422, "idempotency-reused")


def test_one_at_a_time_also_when_nothing_is_kept(gateway, app):
    """The line needs no store."""
    fill = app.on(lambda *_: answer(200, b"", [("Stateway-Set", json.dumps({"x": "y" * 3900}))]))
    inside, most = [], []

    def slow(asked, raw, n):
        inside.append(n)
        most.append(len(inside))
        time.sleep(0.1)
        inside.pop()
        return answer(200, f"number {n}")
    path = app.on(slow)
    g = gateway({"apps": {"a": {"servers": [app.address]}},
                 "routes": [{"path": fill, "app": "a", "state": "session"},
                            {"path": path, "app": "a",
                             "idempotency": {"mode": "required", "principal": "header.Authorization",
                                             "store-down": "run"}}],
                 "limits": {"store": "1MiB", "store-memory": "1MiB"}})
    wait_for(lambda: post(g, fill, None).status == 503, 60)
    for _ in range(200):
        if post(g, path, key()).get("stateway-idempotency"):
            break
    k = key()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        got = [f.result() for f in [pool.submit(post, g, path, k) for _ in range(8)]]
    assert max(most) == 1
    assert {a.status for a in got} <= {200, 409}
    assert sum(a.status == 200 for a in got) == app.times(path, k)


# ---- answers that are too much ----


def test_answer_above_the_limit(world, app):
    """The client gets it once; of the next ones each hears that it was done."""
    path = app.on(lambda asked, raw, n: answer(201, b"x" * int(asked.body), [("Location", "/made")]))
    k = key()
    first = post(world, "/small" + path, k, body=b"100")
    replayed(post(world, "/small" + path, k, body=b"100"), first)
    k = key()
    first = post(world, "/small" + path, k, body=b"101")
    assert (first.status, len(first.body)) == (201, 101)
    for _ in range(2):
        got = post(world, "/small" + path, k, body=b"101")
        problem(got, 409, "idempotency-too-large")
        assert got.get("location") == "/made"
    assert app.times(path, k) == 1
    k = key()
    first = post(world, "/d" + path, k, body=str(256 * 1024).encode())
    replayed(post(world, "/d" + path, k, body=str(256 * 1024).encode()), first)
    k = key()
    first = post(world, "/d" + path, k, body=b"3000000")
    assert (first.status, len(first.body)) == (201, 3000000)
    problem(post(world, "/d" + path, k, body=b"3000000"), 409, "idempotency-too-large")
    assert app.times(path, k) == 1


def test_event_stream_is_not_held_back(world, app):
    """It begins at once, is not kept, and is not done again."""
    go = threading.Event()

    def act(asked, raw, n):
        raw.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        raw.send("9\r\ndata: 1\n\n\r\n")
        go.wait(10)
        raw.send("0\r\n\r\n")
    path, k = app.on(act), key()
    with world.connect() as raw:
        raw.send(request_bytes("POST", "/d" + path, [("Authorization", WHO), ("Idempotency-Key", k)], b""))
        raw.socket.settimeout(5)
        assert raw.read_head().status == 200
        assert raw._until(b"data: 1") is not None
        go.set()
        assert raw._until(b"0\r\n\r\n") is not None

    def again():
        with world.connect() as raw:
            raw.send(request_bytes("POST", "/d" + path, [("Authorization", WHO), ("Idempotency-Key", k)], b""))
            return raw.read("POST")
    # its place in the line is free when the stream is over for the gateway, too
    wait_for(lambda: again().get("stateway-error") != "idempotency-running")
    problem(again(), 409, "idempotency-too-large")
    assert app.times(path, k) == 1


# ---- time ----


def test_retention(world, app):
    path, k = app.on(lambda asked, raw, n: answer(200, f"number {n}")), key()
    first = post(world, "/brief" + path, k)
    replayed(post(world, "/brief" + path, k), first)
    time.sleep(2.3)
    got = post(world, "/brief" + path, k)
    assert (got.body, got.get("idempotent-replayed")) == (b"number 2", None)


def test_survives_a_restart(gateway, app, tmp_path):
    path, k = app.on(lambda asked, raw, n: answer(200, f"number {n}", [("X-A", "b")])), key()
    lost = app.on(lambda *_: answer(500))
    settings = {**config(app), "store": f"lmdb:{tmp_path}/state"}
    g = gateway(settings)
    first = post(g, path, k)
    assert post(g, lost, k + "x").status == 500
    g.stop()
    g.check()
    g = gateway(settings)
    replayed(post(g, path, k), first)
    unknown(post(g, lost, k + "x"))


# ---- kills of the gateway ----


def raw_post(gateway, path, k):
    raw = gateway.connect()
    raw.send(request_bytes("POST", path, [("Authorization", WHO), ("Idempotency-Key", k), ("Content-Type",
            "application/json")],
                           b'{"amount":1}'))
    return raw


@pytest.mark.parametrize("mode", ["reject", "retry"])
def test_killed_while_the_app_works(gateway, app, mode):
    def act(asked, raw, n):
        time.sleep(0.6 if n == 1 else 0)
        return answer(200, f"number {n} {asked.get('stateway-idempotency')}")
    path, k = app.on(act), key()
    g = gateway(config(app, unknown=mode))
    raw = raw_post(g, path, k)
    wait_for(lambda: app.times(path, k) == 1)
    g.kill_gateway()
    raw.close()
    if mode == "reject":
        for _ in range(2):
            unknown(post(g, path, k))
        assert app.times(path, k) == 1
    else:
        got = post(g, path, k)
        assert got.body == b"number 2 attempt=2"
        replayed(post(g, path, k), got)


def test_killed_between_claim_and_app(gateway, app):
    """All connections to the app are taken: the claim stands, the app was not asked. Unknown is the honest word."""
    hold = threading.Event()

    def act(asked, raw, n):
        hold.wait(20)
        return answer(200)
    busy, path, k = app.on(act), app.on(lambda asked, raw, n: answer(200, f"number {n}")), key()
    settings = config(app)
    settings["apps"]["a"]["limits"] = {"connections": 1, "pending": 10}
    settings["routes"].insert(0, {"path": busy, "app": "a"})
    g = gateway(settings)
    blocker = g.connect()
    blocker.send(request_bytes("GET", busy))
    wait_for(lambda: app.done[(busy, None)] == 1)
    raw = raw_post(g, path, k)
    time.sleep(0.5)
    assert app.times(path, k) == 0
    g.kill_gateway()
    hold.set()
    blocker.close()
    raw.close()
    got = post(g, path, k)
    if got.status == 200:
        assert got.body == b"number 1"
    else:
        unknown(got)
        assert app.times(path, k) == 0


def test_killed_while_the_answer_is_on_its_way(gateway, app):
    """Done is durable before the first byte: what the client saw half of is there whole."""
    body = os.urandom(200 * 1024)
    path, k = app.on(lambda *_: answer(200, body)), key()
    g = gateway(config(app))
    raw = raw_post(g, path, k)
    assert raw.read_head().status == 200  # and does not read on
    g.kill_gateway()
    raw.close()
    got = post(g, path, k)
    assert (got.status, got.get("idempotent-replayed")) == (200, "true")
    assert got.body == body
    assert app.times(path, k) == 1


class Clients:
    """Threads that make operations, each with a key of its own, until they know how it ended."""

    def __init__(self, gateway, path_of, count=12):
        self.gateway, self.path_of, self.stopping = gateway, path_of, False
        self.known, self.unknown, self.wrong = {}, set(), []
        self.threads = [threading.Thread(target=self._run, args=(n,)) for n in range(count)]

    def _run(self, n):
        while not self.stopping:
            k, path = key(), self.path_of(n)
            told = None
            while True:
                try:
                    got = post(self.gateway, path, k)
                except (OSError, EOFError, ValueError):
                    time.sleep(0.01)
                    continue
                label = got.get("stateway-error")
                if got.status == 200:
                    if told is not None and told != got.body:
                        self.wrong.append((k, told, got.body))
                    if told is None and random.random() < 0.5:  # once more, to hear it twice
                        told = got.body
                        continue
                    self.known[k] = got.body
                    break
                if label == "idempotency-unknown":
                    if told is not None:
                        self.wrong.append((k, told, "unknown"))
                    self.unknown.add(k)
                    break
                if got.status == 409 or got.status >= 500:
                    time.sleep(0.01)
                    continue
                self.wrong.append((k, got.status, label))
                break

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        for thread in self.threads:
            thread.join(60)
        assert not any(t.is_alive() for t in self.threads)


def kill_at_random(gateway, rounds):
    for _ in range(rounds):
        time.sleep(random.uniform(1.05, 1.4))  # one that lived for a second is restarted at once
        old = gateway.gateway_pid()
        os.kill(old, signal.SIGKILL)
        wait_for(lambda: gateway.gateway_pid() not in (None, old))
        gateway.wait_ready()
    time.sleep(0.3)


@pytest.mark.parametrize("mode", ["reject", "retry"])
def test_kills_at_any_moment(gateway, app, mode):
    """What was told for good was done once (retry: at least once, the app hears that it is a retry), and stays so."""
    def act(asked, raw, n):
        time.sleep(random.choice([0, 0, 0.002, 0.02]))
        return answer(200, f"{asked.get('idempotency-key')} {n}")
    path = app.on(act)
    g = gateway(config(app, unknown=mode))
    with Clients(g, lambda n: path) as clients:
        kill_at_random(g, 4)
    assert not clients.wrong, clients.wrong[:5]
    assert len(clients.known) > 50
    done = {k: n for (p, k), n in app.done.items() if p == path}
    for k, body in clients.known.items():
        assert body.decode().split()[0] == k
        assert done[k] == 1 if mode == "reject" else done[k] >= 1, (k, done[k])
    if mode == "reject":
        assert all(n == 1 for n in done.values()), [k for k, n in done.items() if n > 1]
        assert all(done.get(k, 0) <= 1 for k in clients.unknown)
    else:
        assert not clients.unknown
        again = collections.Counter(a.get("idempotency-key") for a in app.asked if a.target == path
                                    and a.get("stateway-idempotency") == "attempt=1")
        assert max(again.values()) == 1, "the app was asked anew as if nothing had been"
    sample = random.sample(sorted(clients.known), 20)
    for k in sample:
        got = post(g, path, k)
        assert (got.body, got.get("idempotent-replayed")) == (clients.known[k], "true")


@pytest.mark.parametrize("mode", ["reject", "retry"])
def test_state_and_key_are_one(gateway, app, mode):
    """The app adds one to a state, and nothing else: the sum is the number of keys that are done. Exactly."""
    def act(asked, raw, n):
        state = json.loads(asked.get("stateway-state", '{"n":0}'))
        time.sleep(random.choice([0, 0, 0.003]))
        state["n"] += 1
        return answer(200, str(state["n"]), [("Stateway-Set", json.dumps(state))])

    before, app.otherwise = app.otherwise, act
    try:
        settings = config(app, {"path": "/sum/{room}", "state": "session", "session": {"key": "path.room"}},
                          unknown=mode)
        g = gateway(settings)
        with Clients(g, lambda n: f"/sum/{n % 4}") as clients:
            kill_at_random(g, 4)
        assert not clients.wrong, clients.wrong[:5]
        assert len(clients.known) > 50
        assert mode == "reject" or not clients.unknown
        sums = {}
        for room in range(4):
            read = post(g, f"/sum/{room}", key())
            sums[room] = int(read.body) - 1
        # An unknown outcome was committed with its key, or not at all: then the key says "unknown" for good.
        assert sum(sums.values()) == len(clients.known), (sums, len(clients.known), len(clients.unknown))
        numbers = collections.Counter()
        for k, body in clients.known.items():
            numbers[body] += 1
        assert max(numbers.values()) <= 4  # each number once a room
    finally:
        app.otherwise = before


def test_a_refused_update_takes_the_key_along(gateway, app):
    """The app's update cannot be committed: neither state nor key may say that it was done."""
    def act(asked, raw, n):
        return answer(200, f"number {n}", [("Stateway-Set", "no json" if n == 1 else '{"n":1}')])
    path, k = app.on(act), key()
    g = gateway(config(app, {"path": path, "state": "session", "session": {"key": "header.X-Room"}}))
    got = post(g, path, k, headers=[("X-Room", "r")])
    assert (got.status, got.get("stateway-error")) == (502, "update-json")
    unknown(settled(g, path, k, headers=[("X-Room", "r")]))
    assert app.times(path, k) == 1


def test_a_lost_race_is_not_done_twice_unknowingly(gateway, app):
    """cas: the app ran, and may have charged a card, when the commit met a newer version. Its key is not free."""
    inside, go = threading.Event(), threading.Event()

    def act(asked, raw, n):
        if asked.get("idempotency-key") == k and n == 1:
            inside.set()
            go.wait(5)
        return answer(200, f"number {n}", [("Stateway-Set", json.dumps({"by": asked.get("idempotency-key")}))])
    path, k = app.on(act), key()
    g = gateway(config(app, {"path": path, "state": "session", "session": {"key": "header.X-Room",
            "concurrency": "cas"}}))
    room = [("X-Room", "r")]
    assert post(g, path, key(), headers=room).status == 200
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(post, g, path, k, headers=room)
        assert inside.wait(5)
        assert post(g, path, key(), headers=room).status == 200
        go.set()
        got = slow.result()
    assert (got.status, got.get("stateway-error")) == (409, "conflict")
    again = settled(g, path, k, headers=room)
    assert app.times(path, k) == 1 or app.last(path).get("stateway-idempotency") == "attempt=2", again
