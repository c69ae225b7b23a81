"""HTTP/1.1 through the gateway: what goes on, in both directions, and what does not. See origins/stage.py."""
import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import pytest

from harness import Raw, answer, free_port, request_bytes
from origins.stage import Services, Stage, memory, raw_answer, read_body, told, understood

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def stage():
    with Stage() as one:
        yield one


@pytest.fixture(scope="module")
def services(stage):
    folder = Path(tempfile.mkdtemp(prefix="stateway-http-"))

    def config(engine):
        apps = {"a": {"servers": [stage.address]},
                "down": {"servers": [f"127.0.0.1:{free_port()}"], "retry": {"attempts": 0}}}
        routes = [{"path": "/*", "app": "a"},
                  {"path": "/cut/off/*", "app": "a", "strip": "/cut/off"},
                  {"path": "/state/*", "app": "a", "state": "session"},
                  {"path": "/pin/*", "app": "a", "state": "sticky", "expose": ["verdict", "instance"]},
                  {"path": "/only/*", "app": "a", "methods": ["GET", "PUT"], "host": "only.example"},
                  {"path": "/down/*", "app": "down"}]
        for route in routes:
            route.setdefault("host", "localhost")
        return {"listen": [{"address": f"127.0.0.1:{free_port()}"}, {"address": f"unix:{folder}/{engine}"}],
                "trusted": ["unix"], "apps": apps, "routes": routes, "limits": {"body": "128MiB"},
                "timeouts": {"connect": "500ms"}}

    running = Services(config)
    yield running
    running.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def service(services, engine):
    return services(engine)


def unix_of(service):
    """The listener whose peers are trusted."""
    return service.config["listen"][1]["address"][5:]


def headers_of(answered, name):
    """Of the request that the app understood."""
    return [v for n, v in answered.json()["headers"] if n.lower() == name.lower()]


def chunked(*pieces, trailers=b""):
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n" + trailers + b"\r\n"


# ---- connections ----


def test_keep_alive(service, stage):
    with service.connect() as raw:
        for i in range(30):
            got = raw.request("POST", f"/k{i}", body=b"x" * i)
            assert (got.status, got.json()["target"], got.json()["length"]) == (200, f"/k{i}", i)
            assert got.get("connection") is None


def test_connections_to_the_app_are_used_again(service, stage):
    service.get("/warm")
    before = stage.connections
    for i in range(20):
        assert service.get(f"/again{i}").status == 200
    assert stage.connections - before <= 2  # one a worker


def test_close(service):
    with service.connect() as raw:
        got = raw.request("GET", "/", {"Connection": "close"})
        assert got.status == 200 and got.get("connection") == "close"
        assert raw.is_closed()


def test_pipelining_100_deep_and_mixed(service, stage):
    data, want = b"", []
    for i in range(100):
        kind = i % 5
        if kind == 0:
            data += request_bytes("GET", f"/p{i}")
        elif kind == 1:
            data += request_bytes("POST", f"/p{i}", body=b"b" * (i * 7))
        elif kind == 2:
            data += (f"PUT /p{i} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode() +
                     chunked(b"c" * i, b"d"))
        elif kind == 3:
            data += request_bytes("HEAD", f"/p{i}")
        else:
            data += request_bytes("GET", f"/p{i}", host="nobody.example")
        want.append((("GET", "POST", "PUT", "HEAD", "GET")[kind], (0, i * 7, i + 1, 0, 0)[kind], kind))
    for cut in (None, 1009):
        with service.connect() as raw:
            raw.send(data, cut=cut)
            for i, (method, length, kind) in enumerate(want):
                got = raw.read(method)
                assert got.status == (404 if kind == 4 else 200), (i, got)
                if kind < 3:
                    said = got.json()
                    assert (said["method"], said["target"], said["length"]) == (method, f"/p{i}", length)


def test_pipelining_answers_wait_for_the_slow_one(service, stage):
    path = stage.on(lambda asked, raw: time.sleep(0.3) or answer(200, b"slow"))
    with service.connect() as raw:
        raw.send(request_bytes("GET", path) + request_bytes("GET", "/fast"))
        assert raw.read().body == b"slow"
        assert raw.read().json()["target"] == "/fast"


def test_pipelining_stops_at_a_bad_request(service, stage):
    """What stands behind a request that was not understood is never looked at."""
    path = stage.on(understood)
    with service.connect() as raw:
        raw.send(request_bytes("GET", "/first") + b"GET  /x HTTP/1.1\r\nHost: localhost\r\n\r\n" +
                 request_bytes("GET", path))
        assert raw.read().status == 200
        got = raw.read()
        assert (got.status, got.get("connection")) == (400, "close")
        assert raw.is_closed()
    assert not stage.asked_for(path)


def test_request_byte_by_byte(service):
    data = (b"POST /slow HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" +
            chunked(b"ab", b"c" * 17, trailers=b"T: 1\r\n"))
    with service.connect() as raw:
        raw.send(data + data, cut=1)
        for _ in range(2):
            got = raw.read().json()
            assert (got["length"], got["trailers"]) == (19, [["T", "1"]])


# ---- bodies ----


def test_chunked_request(service):
    body = os.urandom(5000)
    data = (b"POST /c HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"7d0;a=b;c=\"d;e\"\r\n" + body[:2000] + b"\r\n00000bb8\r\n" + body[2000:] + b"\r\n0\r\n\r\n")
    got = raw_answer(service, data)
    assert (got.json()["length"], got.json()["sha256"]) == (5000, hashlib.sha256(body).hexdigest())
    assert headers_of(got, "transfer-encoding") == ["chunked"] and not headers_of(got, "content-length")


def test_chunked_answer(service, stage):
    body = os.urandom(70000)
    path = stage.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" +
                      chunked(*(body[i:i + 999] for i in range(0, len(body), 999))))
    with service.connect() as raw:
        for _ in range(2):
            got = raw.request("GET", path)
            assert got.body == body and got.get("content-length") is None


def test_answer_until_close_becomes_chunked(service, stage):
    path = stage.says(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", close=True)
    with service.connect() as raw:
        got = raw.request("GET", path)
        assert got.body == b"until the end" and got.get("transfer-encoding") == "chunked"
        assert raw.request("GET", "/next").status == 200


def test_trailers_of_the_request(service):
    data = (b"POST /t HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTrailer: Digest, X-Two\r\n\r\n" +
            chunked(b"body", trailers=b"Digest:sha=1 \r\nContent-Length: 3\r\nHost: evil\r\nStateway-State: {}\r\n"
                                      b"X-Two: 2\r\nCookie: a=b\r\nX-Forwarded-For: 1.1.1.1\r\n"))
    got = raw_answer(service, data)
    assert got.json()["trailers"] == [["Digest", "sha=1"], ["X-Two", "2"]]
    assert headers_of(got, "trailer") == ["Digest, X-Two"]


def test_trailers_of_the_answer(service, stage):
    path = stage.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Server-Timing\r\n\r\n" +
                      chunked(b"body", trailers=b"Server-Timing: db;dur=5\r\nSet-Cookie: a=b\r\nStateway-Set: {}\r\n"
                                                b"Content-Length: 9\r\n"))
    got = service.get(path)
    assert (got.body, got.trailers) == (b"body", [("Server-Timing", "db;dur=5")])
    assert got.get("trailer") == "Server-Timing"


def test_head_and_bodyless_statuses(service, stage):
    path = stage.says(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nETag: \"a\"\r\n\r\n")
    gone = stage.says(b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n")
    same = stage.says(b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 77\r\n\r\n")
    with service.connect() as raw:
        got = raw.request("HEAD", path)
        assert (got.status, got.get("content-length")) == (200, "1234")
        got = raw.request("GET", gone)
        assert (got.status, got.get("x-a"), got.get("content-length")) == (204, "b", None)
        assert got.get("transfer-encoding") is None
        got = raw.request("GET", same, {"If-None-Match": '"a"'})
        assert (got.status, got.get("etag"), got.get("content-length")) == (304, '"a"', "77")
        assert raw.request("GET", "/still").status == 200
    assert stage.asked_for(same)[-1].get("if-none-match") == '"a"'


def test_empty_answer_has_a_length(service, stage):
    path = stage.says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    got = service.get(path)
    assert (got.status, got.get("content-length"), got.body) == (200, "0", b"")


def test_ranges(service, stage):
    path = stage.says(b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-5/10\r\nContent-Length: 4\r\n\r\ncdef")
    got = service.get(path, headers={"Range": "bytes=2-5", "If-Range": '"x"'})
    assert (got.status, got.get("content-range"), got.body) == (206, "bytes 2-5/10", b"cdef")
    assert stage.asked_for(path)[0].get("range") == "bytes=2-5"
    assert stage.asked_for(path)[0].get("if-range") == '"x"'


def test_answer_fields_keep_their_order_and_number(service, stage):
    fields = [("Set-Cookie", "a=1; Path=/"), ("Vary", "Accept"), ("Set-Cookie", "b=2, c; HttpOnly"),
              ("Vary", "Cookie"), ("ETag", 'W/"x"'), ("Set-Cookie", "d=4"), ("Last-Modified", "yesterday"),
              ("WWW-Authenticate", "Basic realm=\"a\""), ("X-Empty", ""), ("X-High", "\xe9\xff")]
    path = stage.says(answer(200, b"x", fields))
    got = service.get(path)
    assert [(n, v) for n, v in got.headers if n in dict(fields)] == fields


def test_reason_and_unknown_status(service, stage):
    assert service.get(stage.says(b"HTTP/1.1 299 Quite Fine\r\nContent-Length: 0\r\n\r\n")).reason == "Quite Fine"
    assert service.get(stage.says(b"HTTP/1.1 418\r\nContent-Length: 0\r\n\r\n")).status == 418


def test_get_with_a_body(service):
    got = service.request("GET", "/g", body=b"why not")
    assert (got.json()["method"], got.json()["length"]) == ("GET", 7)


# ---- interim answers ----


def test_expect_app_says_continue(service, stage):
    def act(asked, raw):
        raw.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return understood(asked, raw)
    path = stage.on(act)
    with service.connect() as raw:
        raw.send(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert raw.read_head().status == 100
        raw.send(b"after")
        got = raw.read()
        assert got.json()["length"] == 5 and headers_of(got, "expect") == ["100-continue"]
        assert raw.request("GET", "/").status == 200


@pytest.mark.parametrize("status", [417, 401])
def test_expect_app_refuses_unread(service, stage, status):
    path = stage.on(lambda asked, raw: answer(status, b"no"))
    with service.connect() as raw:
        raw.send(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 50000\r\n\r\n")
        got = raw.read(interim=True)
        # 50000 bytes may come or not: who cannot know must not use the connection again
        assert (got.status, got.body, got.get("connection")) == (status, b"no", "close")


def test_expect_something_else(service):
    got = service.request("POST", "/", {"Expect": "magic"}, b"x")
    assert (got.status, got.get("stateway-error")) == (417, "expect")


def test_interim_answers(service, stage):
    path = stage.says(b"HTTP/1.1 100 Continue\r\n\r\n"  # nobody asked: swallowed
                      b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nStateway-Set: {}\r\n\r\n"
                      b"HTTP/1.1 102 Processing\r\n\r\n"
                      b"HTTP/1.1 103 Early Hints\r\nLink: </b.js>; rel=preload\r\n\r\n" + answer(200, b"done"))
    with service.connect() as raw:
        raw.send(request_bytes("GET", path))
        hints = [raw.read_head() for _ in range(3)]
        assert [h.status for h in hints] == [103, 102, 103]
        assert hints[0].get("link") == "</a.css>; rel=preload" and not hints[0].get("stateway-set")
        assert raw.read().body == b"done"
        assert raw.request("GET", "/").status == 200
    with service.connect() as raw:  # RFC 9110, 15.2
        raw.send(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert raw.read(interim=True).status == 200


def test_early_hints_come_early(service, stage):
    go = threading.Event()
    path = stage.on(lambda asked, raw: raw.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n") and
                    go.wait(10) and answer(200, b"late"))
    with service.connect() as raw:
        raw.send(request_bytes("GET", path))
        assert raw.read_head().status == 103
        go.set()
        assert raw.read().body == b"late"


# ---- methods and targets ----


@pytest.mark.parametrize("method", ["PROPFIND", "REPORT", "MKCOL", "PATCH", "DELETE", "PURGE", "x-my~Method!", "getter"])
def test_methods_go_on(service, method):
    got = service.request(method, "/m", body=b"<x/>")
    assert (got.json()["method"], got.json()["length"]) == (method, 4)


def test_connect_is_refused(service, stage):
    before = len(stage.asked)
    got = raw_answer(service, b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
    assert (got.status, got.get("stateway-error")) == (501, "method-refused")
    assert len(stage.asked) == before


@pytest.mark.parametrize("method", ["get", "Post", "connect"])
def test_known_methods_in_other_letters_are_refused(service, method):
    """Some apps take "get" for GET; routes, placements and csrf would have judged another method."""
    got = raw_answer(service, f"{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert (got.status, got.get("stateway-error")) == (501, "method-refused")


@pytest.mark.parametrize("target, host, seen", [
    ("http://localhost/a?b=c", "localhost", "/a?b=c"), ("HTTP://LOCALHOST", "localhost", "/"),
    ("http://localhost?q", "localhost", "/?q"), ("http://localhost:8080/x", "localhost:8080", "/x")])
def test_absolute_form(service, target, host, seen):
    got = raw_answer(service, f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert got.json()["target"] == seen
    assert [h.lower() for h in headers_of(got, "host")] == [host]


def test_absolute_form_contradicting_host(service):
    assert raw_answer(service, b"GET http://localhost/ HTTP/1.1\r\nHost: other\r\n\r\n").status == 400


def test_options_star(service):
    got = raw_answer(service, b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (got.status, got.json()["method"], got.json()["target"]) == (200, "OPTIONS", "*")
    assert raw_answer(service, b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n").status == 400


def test_target_goes_on_as_it_is(service):
    for target in ("/a%20b;c=d//e/~x?x=%2F&y=a+b??", "/%C3%A9", "/a?", "/x:y@z!$&'()*+,;=", "//double", "/%7f%09"):
        assert service.get(target).json()["target"] == target


@pytest.mark.parametrize("target", ["/a%00b", "/a%0d%0aX: y", "/../x", "/%2e%2e/x", "/a\\b", "/a#b", "/%zz"])
def test_targets_refused(service, target):
    got = raw_answer(service, f"GET {target.replace(' ', '%20')} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert (got.status, got.get("stateway-error")) == (400, "target")


# ---- header fields ----


def test_hop_by_hop_of_the_request(service):
    got = service.request("GET", "/h", [("Connection", "X-Drop, keep-alive , x-drop-too"), ("X-Drop", "1"),
                                        ("X-Drop-Too", "2"), ("Keep-Alive", "timeout=5"), ("TE", "trailers, deflate"),
                                        ("Proxy-Connection", "keep-alive"), ("Proxy-Authorization", "Basic x"),
                                        ("Upgrade", "h2c"), ("HTTP2-Settings", "AAA"), ("X-Stay", "3")])
    for name in ("x-drop", "x-drop-too", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade",
                 "http2-settings"):
        assert not headers_of(got, name), name
    assert headers_of(got, "x-stay") == ["3"] and headers_of(got, "te") == ["trailers"]
    assert headers_of(got, "connection") == ["TE"]


def test_connection_cannot_hide_what_counts(service):
    """A client that nominates them must not take from the app what it decides by."""
    names = {"Authorization": "Bearer a", "Cookie": "a=b", "Content-Type": "text/x", "Origin": "http://localhost",
             "Content-Encoding": "gzip"}
    got = service.request("POST", "/h", [("Connection", ", ".join([*names, "Host", "Content-Length", "Forwarded",
                                                                   "X-Forwarded-For"]))] + list(names.items()), b"x")
    for name, value in names.items():
        assert headers_of(got, name) == [value]
    assert headers_of(got, "host") == ["localhost"] and headers_of(got, "x-forwarded-for") == ["127.0.0.1"]
    assert got.json()["length"] == 1


def test_hop_by_hop_of_the_answer(service, stage):
    path = stage.says(answer(200, b"x", [("Connection", "X-Drop, close"), ("X-Drop", "1"), ("Keep-Alive", "timeout=5"),
                                         ("Proxy-Authenticate", "Basic"), ("Upgrade", "h2c"), ("X-Stay", "2")]))
    with service.connect() as raw:
        got = raw.request("GET", path)
        for name in ("x-drop", "keep-alive", "proxy-authenticate", "upgrade", "connection"):
            assert got.get(name) is None, name
        assert got.get("x-stay") == "2"
        assert raw.request("GET", "/").status == 200  # the app closes; this connection stays


def test_via_and_date(service, stage):
    path = stage.says(answer(200, b"", [("Via", "1.1 inner")]))
    got = service.get(path, headers={"Via": "1.0 outer"})
    assert got.all("via") == ["1.1 inner", "1.1 stateway"] and got.get("date", "").endswith("GMT")
    assert stage.asked_for(path)[0].all("via") == ["1.0 outer", "1.1 stateway"]
    path = stage.says(answer(200, b"", [("Date", "Tue, 01 Jan 2030 00:00:00 GMT"), ("Server", "mine")]))
    got = service.get(path)
    assert got.all("date") == ["Tue, 01 Jan 2030 00:00:00 GMT"] and got.all("server") == ["mine"]


def test_forwarded_of_a_stranger_is_dropped(service):
    got = service.get("/f", headers=[("Forwarded", "for=6.6.6.6;proto=https"), ("X-Forwarded-For", "6.6.6.6"),
                                     ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil"),
                                     ("X-Forwarded-Port", "1"), ("X-Forwarded-Prefix", "/evil"), ("X_Forwarded_For", "6")])
    assert headers_of(got, "forwarded") == ["for=127.0.0.1;host=localhost;proto=http"]
    assert headers_of(got, "x-forwarded-for") == ["127.0.0.1"]
    assert headers_of(got, "x-forwarded-proto") == ["http"]
    assert headers_of(got, "x-forwarded-host") == ["localhost"]
    for name in ("x-forwarded-port", "x-forwarded-prefix", "x_forwarded_for"):
        assert not headers_of(got, name), name


def test_forwarded_of_a_trusted_peer_is_extended(service):
    with Raw(unix_of(service)) as raw:
        got = raw.request("GET", "/f", [("Forwarded", "for=9.9.9.9;proto=https;host=shop.example"),
                                        ("X-Forwarded-For", "9.9.9.9"), ("X-Forwarded-Proto", "https"),
                                        ("X-Forwarded-Host", "shop.example"), ("X-Forwarded-Port", "443")])
        assert headers_of(got, "forwarded")[0].startswith("for=9.9.9.9;proto=https;host=shop.example, for=")
        assert headers_of(got, "x-forwarded-for")[0].startswith("9.9.9.9, ")
        assert headers_of(got, "x-forwarded-proto") == ["https"]
        assert headers_of(got, "x-forwarded-host") == ["shop.example"]
        assert headers_of(got, "x-forwarded-port") == ["443"]
        got = raw.request("GET", "/f", [("X-Forwarded-For", "9.9.9.9, 8.8.8.8"), ("X-Forwarded-Proto", "https")])
        assert headers_of(got, "forwarded")[0].startswith("for=9.9.9.9;host=localhost;proto=https, for=8.8.8.8, for=")


def test_traceparent_goes_on(service):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    got = service.get("/t", headers={"traceparent": trace, "tracestate": "a=b", "baggage": "k=v"})
    assert (headers_of(got, "traceparent"), headers_of(got, "tracestate")) == ([trace], ["a=b"])
    assert headers_of(got, "baggage") == ["k=v"]


def test_stateway_headers_of_a_client_are_dropped(service):
    names = ["Stateway-State", "stateway-visitor", "Stateway_State", "STATEWAY-Anything", "Stateway_State_Info",
             "stateway-", "Stateway_Key"]
    for path in ("/s", "/state/s", "/pin/s"):
        got = service.get(path, headers=[(n, "forged") for n in names])
        assert got.status == 200
        assert not [h for h in got.json()["headers"] if "forged" in h[1]]


def test_stateway_headers_of_an_app_are_dropped(service, stage):
    path = stage.says(answer(200, b"x", [("Stateway-Instance", "me"), ("Stateway-Secret", "s"), ("stateway_set", "{}"),
                                         ("X-Stay", "1")]))
    got = service.get(path)
    assert not [n for n, _ in got.headers if n.lower().startswith("stateway")] and got.get("x-stay") == "1"


def test_exposed_headers(service):
    got = service.get("/pin/e", headers={"Stateway-Verdict": "forged"})
    assert got.get("stateway-verdict") == "fresh" and got.get("stateway-instance", "").startswith("a")


def test_own_cookies_do_not_reach_the_app(service, stage):
    path = stage.on(lambda asked, raw: (read_body(asked, raw), answer(200, b"", {"Stateway-Set": '{"n":1}'}))[1],
                    "/state/cookie")
    jar = {}
    assert service.post(path, cookies=jar).status == 200
    assert list(jar) == ["sid"]
    got = service.get("/state/look", headers={"Cookie": f"a=1; sid={jar['sid']}; b=2;sid=x; c"})
    assert headers_of(got, "cookie") == ["a=1; b=2; c"]
    assert headers_of(got, "stateway-state") == ['{"n":1}']
    got = service.get("/state/look", cookies=jar)
    assert not headers_of(got, "cookie")
    assert headers_of(service.get("/state/l", headers=[("Cookie", "a=1"), ("Cookie", "b=2")]), "cookie") == ["a=1; b=2"]


def test_strip(service):
    for target, seen in (("/cut/off", "/"), ("/cut/off/", "/"), ("/cut/off/x/y?z=/cut/off", "/x/y?z=/cut/off"),
                         ("/cut/off?q", "/?q")):
        got = service.get(target, headers={"X-Forwarded-Prefix": "/evil"})
        assert got.json()["target"] == seen
        assert headers_of(got, "x-forwarded-prefix") == ["/cut/off"]
    assert not headers_of(service.get("/cut/offer"), "x-forwarded-prefix")


# ---- HTTP/1.0 ----


def test_http_1_0(service, stage):
    path = stage.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"one", b"two"))
    with service.connect() as raw:
        raw.send(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")
        got = raw.read()
        assert (got.body, got.get("transfer-encoding"), got.get("connection")) == (b"onetwo", None, "close")
    with service.connect() as raw:
        raw.send(b"GET /x HTTP/1.0\r\nHost: localhost\r\n\r\n")
        got = raw.read()
        assert got.get("connection") == "close" and headers_of(got, "via") == ["1.0 stateway"]
        assert raw.is_closed()


def test_http_1_0_keep_alive(service, stage):
    with service.connect() as raw:
        for i in range(3):
            raw.send(f"POST /{i} HTTP/1.0\r\nHost: localhost\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nab")
            got = raw.read()
            assert (got.get("connection"), got.json()["length"]) == ("keep-alive", 2)
        path = stage.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"end"))
        raw.send(f"GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
        got = raw.read()
        assert (got.body, got.get("connection")) == (b"end", "close")  # its end can only be the close


def test_http_1_0_app(service, stage):
    path = stage.says(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", close=True)
    with service.connect() as raw:
        for _ in range(2):
            got = raw.request("GET", path)
            assert (got.version, got.body) == ("HTTP/1.1", b"ok")


# ---- streams ----


def test_event_stream_is_delivered_as_it_comes(service, stage):
    go = threading.Semaphore(0)

    def act(asked, raw):
        raw.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(5):
            go.acquire(timeout=10)
            raw.send(b"9\r\ndata: %d\n\n\r\n" % i)
        return b"0\r\n\r\n"
    path = stage.on(act)
    with service.connect() as raw:
        raw.send(request_bytes("GET", path))
        assert raw.read_head().get("content-type") == "text/event-stream"
        for i in range(5):
            go.release()
            assert int(raw._until(b"\r\n"), 16) == 9
            assert raw._exactly(11) == b"data: %d\n\n\r\n" % i
        assert raw._until(b"\r\n") == b"0"


def test_request_is_streamed(service, stage):
    """The app gets the first piece of an upload while the rest is not sent yet."""
    first = threading.Event()

    def act(asked, raw):
        assert raw._exactly(5) == b"first"
        first.set()
        assert raw._exactly(4) == b"last"
        return answer(200, b"both")
    path = stage.on(act)
    with service.connect() as raw:
        raw.send(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nfirst")
        assert first.wait(10)
        raw.send(b"last")
        assert raw.read().body == b"both"


def large(size):
    block = hashlib.sha256(b"seed").digest() * 2048
    return (block * (size // len(block) + 1))[:size]


def collect(raw, size, framing):
    """A large body: bytes are joined once, not at every read."""
    got = bytearray(raw.buffer)
    while len(got) < size if framing == "length" else not got.endswith(b"\r\n0\r\n\r\n"):
        data = raw.socket.recv(1 << 18)
        assert data, f"closed after {len(got)}"
        got += data
    raw.buffer = b""
    if framing == "length":
        return bytes(got)
    body, at = bytearray(), 0
    while True:
        end = got.index(b"\r\n", at)
        count = int(got[at:end], 16)
        if count == 0:
            return bytes(body)
        body += got[end + 2:end + 2 + count]
        at = end + 4 + count


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_large_bodies_with_a_slow_reader_and_a_slow_writer(service, stage, framing):
    """80 MiB up to an app that reads late, 80 MiB down to a client that reads late: the gateway keeps neither. It is
    more than the kernel's buffers take on both connections (tcp_rmem and tcp_wmem: 36 MiB each at most)."""
    size = 80 * MIB
    data = large(size)
    want = hashlib.sha256(data).hexdigest()
    wrap = (lambda d: d) if framing == "length" else (lambda d: chunked(*(d[i:i + 100000] for i in range(0, size, 100000))))
    field = f"Content-Length: {size}" if framing == "length" else "Transfer-Encoding: chunked"
    reading = threading.Event()

    def up(asked, raw):
        reading.wait(20)
        asked.body, asked.trailers = collect(raw, size, framing), []
        return answer(200, json.dumps(told(asked)))

    def down(asked, raw):
        raw.send(f"HTTP/1.1 200 OK\r\n{field}\r\n\r\n".encode() + wrap(data))
    pid = service.gateway_pid()
    service.get("/warm")
    before = memory(pid)
    with service.connect(timeout=60) as raw:
        sender = threading.Thread(target=raw.send, args=(
            f"POST {stage.on(up)} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n".encode() + wrap(data),))
        sender.start()
        time.sleep(0.7)
        assert sender.is_alive()  # it is held up, all the way
        grown_up = memory(pid) - before
        reading.set()
        got = raw.read()
        sender.join(20)
        assert (got.json()["length"], got.json()["sha256"]) == (size, want)
    with service.connect(timeout=60) as raw:
        raw.send(request_bytes("GET", stage.on(down)))
        head = raw.read_head()
        time.sleep(0.7)
        grown_down = memory(pid) - before
        assert hashlib.sha256(collect(raw, size, framing)).hexdigest() == want
    # io_uring fills what it was lent, 16 MiB a worker, before it can be told to stop, and is lent as much again
    assert max(grown_up, grown_down, memory(pid) - before) < 40 * MIB, (grown_up, grown_down)


def test_slow_writer(service, stage):
    """An app that writes a large answer in many small pieces with pauses."""
    def act(asked, raw):
        raw.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        raw.send(b"x" * 100000, cut=5000, pause=0.01)
    assert service.get(stage.on(act)).body == b"x" * 100000


def test_early_answer_while_the_upload_still_runs(service, stage):
    """The client reads the whole refusal although it never stopped sending."""
    path = stage.on(lambda asked, raw: raw._exactly(10000) and answer(413, b"too much " * 500))
    with service.connect(timeout=30) as raw:
        raw.send(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {8 * MIB}\r\n\r\n")

        def upload():
            try:
                raw.send(b"u" * 8 * MIB, cut=65536)
            except OSError:
                pass
        sender = threading.Thread(target=upload)
        sender.start()
        got = raw.read()
        assert (got.status, len(got.body), got.get("connection")) == (413, 4500, "close")
        sender.join(20)
    assert service.get("/after").status == 200


def test_early_answer_with_a_body_that_outlives_the_upload(service, stage):
    """An app that answers while it reads: both go on until both are complete."""
    def act(asked, raw):
        raw.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(10):
            raw._exactly(1000)
            raw.send(b"3e8\r\n" + b"e" * 1000 + b"\r\n")
        return b"0\r\n\r\n"
    with service.connect() as raw:
        raw.send(f"POST {stage.on(act)} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\n")
        raw.send(b"u" * 1000)
        head = raw.read_head()
        raw.send(b"u" * 9000, cut=1000, pause=0.01)
        assert len(raw.read_body(head).body) == 10000


def test_client_half_closes_after_its_request(service, stage):
    path = stage.on(lambda asked, raw: (time.sleep(0.2), read_body(asked, raw), answer(200, b"z" * 300000))[2])
    for data in (request_bytes("GET", path), request_bytes("POST", path, body=b"abc"),
                 request_bytes("GET", path) + request_bytes("GET", path)):
        with service.connect() as raw:
            raw.send(data)
            raw.shutdown()
            for _ in range(data.count(b"HTTP/1.1\r\n")):
                assert len(raw.read().body) == 300000
            assert raw.is_closed()


# ---- answers of our own ----


def test_no_route_and_no_method(service):
    got = service.get("/", headers={"Host": "nobody.example"})
    assert (got.status, got.get("stateway-error")) == (404, "no-route")
    got = service.request("POST", "/only/x", {"Host": "only.example"}, b"")
    assert (got.status, got.get("stateway-error")) == (405, "no-method")
    assert sorted(got.get("allow").split(", ")) == ["GET", "PUT"]
    assert service.get("/only/x", headers={"Host": "only.example"}).status == 200


def test_no_instance(service):
    got = service.get("/down/x")
    assert (got.status, got.get("stateway-error")) in ((503, "connect"), (503, "no-instance"))
    assert got.get("retry-after") == "1"


def test_errors_are_short_and_say_why(service):
    for data, status, label in (
            (b"GET / HTTP/1.1\r\n\r\n", 400, "host"), (b"GET / HTTP/3.0\r\n", 505, "version"),
            (b"GET /\n", 400, "bare-lf"), (b"\x16\x03\x01\x02\x00\x01", 400, "method"),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "transfer-coding"),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "framing"),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 01\r\n\r\n", 400, "content-length")):
        with service.connect() as raw:
            got = raw.send(data).read()
            assert (got.status, got.get("stateway-error"), got.get("connection")) == (status, label, "close")
            assert got.get("content-type") == "text/plain; charset=utf-8" and got.get("cache-control") == "no-store"
            assert len(got.body) < 120 and got.body.startswith(b"stateway: ") and got.body.count(b"\n") == 1
            assert raw.is_closed()


def test_an_error_of_ours_keeps_the_connection(service):
    with service.connect() as raw:
        for _ in range(3):
            assert raw.request("GET", "/", {"Host": "nobody.example"}).status == 404
            assert raw.request("POST", "/ok", body=b"x").status == 200
        got = raw.request("HEAD", "/", {"Host": "nobody.example"})
        assert got.status == 404
        assert raw.request("GET", "/ok").status == 200
