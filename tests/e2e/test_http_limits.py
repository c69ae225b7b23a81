"""Limits and times of HTTP/1.1, clients that leave, and origins that misbehave. See origins/stage.py."""
import contextlib
import json
import socket
import threading
import time

import pytest

from harness import answer, request_bytes, wait_for
from origins.stage import Services, Stage, raw_answer, read_body, understood


@pytest.fixture(scope="module")
def stage():
    with Stage() as one:
        yield one


@pytest.fixture(scope="module")
def hole():
    """An address where nobody accepts: a listener whose queue is full."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield f"127.0.0.1:{full.getsockname()[1]}"


@pytest.fixture(scope="module")
def services(stage, hole):
    def config(_):
        return {"apps": {"a": {"servers": [stage.address], "retry": {"attempts": 0}},
                         "hole": {"servers": [hole], "retry": {"attempts": 0}},
                         "twice": {"servers": [stage.address], "retry": {"attempts": 2}}},
                "routes": [{"path": "/act/*", "app": "a"}, {"path": "/hole/*", "app": "hole"},
                           {"path": "/twice/*", "app": "twice", "strip": "/twice"}],
                "limits": {"head": "4KiB", "fields": 16, "target": 256, "body": "64KiB"},
                "timeouts": {"head": "1s", "idle": "1500ms", "body": "1s", "send": "1s", "connect": "500ms",
                             "response": "1s", "exchange": "4s"}}
    running = Services(config)
    yield running
    running.close()


@pytest.fixture
def service(services, engine):
    """Whatever a test does: everybody else is answered after it."""
    one = services(engine)
    yield one
    assert one.get("/act/else").status == 200


# ---- limits ----


@pytest.mark.parametrize("data, status, label", [
    (b"GET /act/" + b"a" * 260 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414, "target-long"),
    (b"GET /act/" + b"a" * 9000, 414, "target-long"),
    (b"GET /act/ HTTP/1.1\r\nHost: h\r\nA: " + b"b" * 5000 + b"\r\n\r\n", 431, "fields-large"),
    (b"GET /act/ HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * 17 + b"\r\n", 431, "fields-many"),
    (b"POST /act/ HTTP/1.1\r\nHost: h\r\nContent-Length: 65537\r\n\r\n", 413, "body-large"),
    (b"POST /act/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n", 413, "body-large"),
    (b"POST /act/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nfffc\r\n", 413, "body-large"),
    (b"POST /act/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX", 400, "chunk-syntax"),
    (b"POST /act/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 1000, 400, "trailer"),
    (b"POST /act/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;" + b"e" * 70000, 400, "chunk-syntax"),
], ids=["target", "target-unfinished", "fields", "count", "length", "chunk", "chunks", "chunk-end", "trailers", "extension"])
def test_limits(service, data, status, label):
    with service.connect() as raw:
        raw.send(data)
        got = raw.read()
        assert (got.status, got.get("stateway-error"), got.get("connection")) == (status, label, "close")
        assert raw.is_closed()


def test_just_within_the_limits(service):
    for data in (b"GET /act/" + b"a" * 247 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
                 b"GET /act/ HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * 15 + b"\r\n",
                 b"GET /act/ HTTP/1.1\r\nHost: h\r\nA: " + b"b" * 4000 + b"\r\n\r\n",
                 b"POST /act/ HTTP/1.1\r\nHost: h\r\nContent-Length: 65536\r\n\r\n" + b"x" * 65536,
                 b"POST /act/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n" + b"x" * 65536 +
                 b"\r\n0\r\n\r\n"):
        assert raw_answer(service, data).status == 200


# ---- times ----


def test_slow_head(service):
    for sent in (b"GET /act/ HT", b"GET /act/ HTTP/1.1\r\nHost: h\r\nA: b\r\n", b"\r"):
        with service.connect() as raw:
            begun = time.monotonic()
            got = raw.send(sent).read()
            assert (got.status, got.get("stateway-error")) == (408, "head-slow")
            assert 0.8 < time.monotonic() - begun < 5
            assert raw.is_closed()


def test_slow_head_is_not_saved_by_trickling(service):
    with service.connect() as raw:
        begun = time.monotonic()
        try:
            raw.send(b"GET /act/ HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * 15, cut=2, pause=0.1)
        except OSError:
            pass
        assert time.monotonic() - begun < 6
        assert raw.is_closed() or raw.buffer.startswith(b"H")


def test_silent_and_idle_connections_are_closed(service):
    with service.connect() as raw:
        assert raw.is_closed(5)  # the time of a head
    with service.connect() as raw:
        assert raw.request("GET", "/act/").status == 200
        begun = time.monotonic()
        assert raw.is_closed(6)
        assert time.monotonic() - begun > 1.2


def test_slow_body(service, stage):
    path = stage.on(understood)
    with service.connect() as raw:
        got = raw.send(f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf".encode()).read()
        assert (got.status, got.get("stateway-error")) == (408, "body-slow")
        assert raw.is_closed()
    with service.connect() as raw:  # slow, but moving
        raw.send(f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n")
        raw.send(b"abcd", cut=1, pause=0.5)
        assert raw.read().json()["length"] == 4


def test_slow_app(service, stage):
    go = threading.Event()
    path = stage.on(lambda asked, raw: go.wait(10) and answer(200))
    begun = time.monotonic()
    got = service.get(path)
    go.set()
    assert (got.status, got.get("stateway-error")) == (504, "app-slow")
    assert 0.8 < time.monotonic() - begun < 4


def test_app_that_stops_in_the_middle(service, stage):
    """Between two pieces of an answer the exchange time counts; then the client sees a cut answer."""
    go = threading.Event()

    def act(asked, raw):
        raw.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        go.wait(20)
    with service.connect() as raw:
        raw.send(request_bytes("GET", stage.on(act)))
        head = raw.read_head()
        begun = time.monotonic()
        with pytest.raises((EOFError, ConnectionError)):
            raw.read_body(head)
        go.set()
        assert time.monotonic() - begun < 8


def test_connect_timeout(service):
    begun = time.monotonic()
    got = service.get("/hole/x")
    assert got.status in (503, 504) and time.monotonic() - begun < 5
    assert got.get("stateway-error") in ("connect-slow", "no-instance", "connect")


def test_client_that_does_not_read_is_dropped(service, stage):
    """Its answer is larger than all buffers on the way; the app is let go."""
    ended = threading.Event()

    def act(asked, raw):
        try:
            raw.send(b"HTTP/1.1 200 OK\r\nContent-Length: 40000000\r\n\r\n")
            for _ in range(400):
                raw.send(b"x" * 100000)
        finally:
            ended.set()
    with service.connect() as raw:
        raw.send(request_bytes("GET", stage.on(act)))
        assert ended.wait(15)
        with pytest.raises((EOFError, ConnectionError)):
            raw.read()


# ---- clients that leave ----


def head_of(path, length=5):
    return f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n".encode()


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
@pytest.mark.parametrize("sent", [b"", b"GE", b"GET /act/ HTTP/1.1\r\nHo", head_of("/act/"), head_of("/act/") + b"ab",
                                  head_of("/act/") + b"abcde", b"GET /act/ HTTP/1.1\r\nHost: h\r\n\r\n" * 50])
def test_client_leaves(service, sent, reset):
    raw = service.connect()
    raw.send(sent)
    time.sleep(0.02)
    if reset:
        raw.reset()
    else:
        raw.close()


@pytest.mark.parametrize("phase", ["upload", "waiting", "answer"])
def test_client_leaves_while_the_app_works(service, stage, phase):
    there, ended = threading.Event(), threading.Event()

    def act(asked, raw):
        there.set()
        try:
            if phase == "answer":
                raw.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for _ in range(1000):
                    raw.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                    time.sleep(0.005)
            elif phase == "upload":
                raw._exactly(1 << 30)
            else:
                raw.socket.settimeout(10)
                assert raw.socket.recv(1) == b""
        finally:
            ended.set()
    raw = service.connect()
    raw.send(head_of(stage.on(act), 5000)[:-2] + b"\r\n" + b"x" * 100 if phase == "upload" else
             request_bytes("GET", stage.on(act)))
    assert there.wait(10)
    time.sleep(0.05)
    raw.reset()
    assert ended.wait(8)  # nothing goes on for nobody


def test_client_ends_its_upload_early(service, stage):
    """Half a body and then the end: the app must not take it for a whole one."""
    seen = []

    def act(asked, raw):
        try:
            read_body(asked, raw)
            seen.append(asked.body)
            return answer(200)
        except EOFError:
            seen.append("cut")
            raise
    for pause in (0, 0.1, 0):
        for data in (head_of(stage.on(act)) + b"ab", b"POST %s HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"
                     b"\r\n5\r\nhello\r\n" % stage.on(act).encode()):
            del seen[:]
            with service.connect() as raw:
                raw.send(data)
                time.sleep(pause)  # without it the end may come before the app is even asked
                raw.shutdown()
                begun = time.monotonic()
                assert raw.is_closed(5)
                assert time.monotonic() - begun < 0.7  # at once, not by the time of a body
            if pause:
                wait_for(lambda: seen == ["cut"], 5)
            time.sleep(0.05)
            assert seen in ([], ["cut"])


# ---- origins that misbehave ----

OK = b"HTTP/1.1 200 OK\r\n"
BAD = {  # bytes, whether it closes behind them; each must be a 502
    "nothing": (b"", True),
    "garbage": (b"\x00\x01\x02 garbage\r\n\r\n", False),
    "no head": (b"hello\n", False),
    "half a head": (OK + b"Content-Le", True),
    "http 2": (b"HTTP/2 200\r\n\r\n", False),
    "http 0.9": (b"<html>hello</html>", True),
    "status 99": (b"HTTP/1.1 099 No\r\nContent-Length: 0\r\n\r\n", False),
    "status 700": (b"HTTP/1.1 700 No\r\nContent-Length: 0\r\n\r\n", False),
    "bare LF": (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", False),
    "folded": (OK + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n", False),
    "blank before colon": (OK + b"Content-Length : 0\r\n\r\n", False),
    "NUL": (OK + b"A: b\0c\r\nContent-Length: 0\r\n\r\n", False),
    "two lengths": (OK + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde", False),
    "length list": (OK + b"Content-Length: 3, 3\r\n\r\nabc", False),
    "length sign": (OK + b"Content-Length: +3\r\n\r\nabc", False),
    "length and chunked": (OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", False),
    "other coding": (OK + b"Transfer-Encoding: gzip\r\n\r\nxx", True),
    "coding in 1.0": (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False),
    "101 unasked": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nraw", False),
    "endless 1xx": (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5000, False),
    "head too large": (OK + b"A: " + b"b" * 100000, False),
    "too many fields": (OK + b"A: b\r\n" * 300 + b"\r\n", False),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_head_is_a_502(service, stage, name):
    data, close = BAD[name]
    path = stage.says(data, close=close)
    before = stage.connections
    with service.connect() as raw:
        got = raw.request("POST", path, body=b"")
        assert got.status == 502, got
        assert got.get("stateway-error") in ("app-head", "app-head-large", "app-closed", "app-upgrade"), got
        assert got.get("connection") is None
        for _ in range(3):  # the client's connection goes on, the app's does not
            assert raw.request("GET", "/act/next").json()["target"] == "/act/next"
    assert len(stage.asked_for(path)) == 1
    assert stage.connections > before or name == "nothing"


CUT = {  # a head, and a body that is not what the head says
    "length": (OK + b"Content-Length: 10\r\n\r\nhalf", True),
    "length, large": (OK + b"Content-Length: 1000000\r\n\r\n" + b"x" * 300000, True),
    "chunked, in a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\na\r\nhalf", True),
    "chunked, between": (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", True),
    "chunked, at the end": (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n", True),
    "chunk size": (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nxyz\r\n", False),
    "chunk too long": (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf and more\r\n0\r\n\r\n", False),
    "trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n" + b"A: b\r\n" * 3000, False),
}


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("minor", [1, 0])
def test_bad_body_is_visible(service, stage, name, minor):
    """Never a complete answer that is wrong: the client sees the cut."""
    data, close = CUT[name]
    path = stage.says(data, close=close)
    with service.connect() as raw:
        raw.send(f"GET {path} HTTP/1.{minor}\r\nHost: h\r\n\r\n")
        try:
            got = raw.read()
        except (EOFError, ConnectionError):
            return
        assert got.status == 502 or (minor == 0 and "chunk" in name + "chunk"), got
        if minor == 0 and got.status == 200:
            assert b"length" not in got.head.lower()  # ends by closing: nothing else can be told in 1.0


@pytest.mark.parametrize("name, data, want", [
    ("two answers", answer(200, b"one") + answer(200, b"two"), b"one"),
    ("longer than it says", OK + b"Content-Length: 3\r\n\r\nonetwothree", b"one"),
    ("204 with a body", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", b""),
    ("304 with a body", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", b""),
    ("answer behind chunks", OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n" + answer(200, b"two"), b"one"),
])
def test_what_comes_behind_an_answer_reaches_nobody(service, stage, name, data, want):
    path = stage.says(data)
    before = stage.connections
    with service.connect() as raw:
        for _ in range(3):
            got = raw.request("GET", path)
            assert (got.status in (200, 204, 304), got.body) == (True, want)
            assert raw.request("GET", "/act/next").json()["target"] == "/act/next"
    assert stage.connections - before >= 3


def test_head_with_a_body(service, stage):
    path = stage.says(answer(200, b"unexpected"))
    with service.connect() as raw:
        for _ in range(3):
            assert raw.request("HEAD", path).get("content-length") == "10"
            assert raw.request("GET", "/act/next").json()["target"] == "/act/next"


def test_bytes_before_a_request(service, stage):
    """What an app sends on an idle connection is never the answer to the next request."""
    def act(asked, raw):
        raw.send(answer(200, b"mine"))
        time.sleep(0.05)
        return answer(200, b"stale")
    path = stage.on(act)
    for _ in range(4):
        assert service.get(path).body == b"mine"
        time.sleep(0.15)
        for _ in range(3):
            assert service.get("/act/next").json()["target"] == "/act/next"


def test_app_byte_by_byte(service, stage):
    data = (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK +
            b"Transfer-Encoding: chunked\r\nSet-Cookie: a=b\r\n\r\n5\r\nhello\r\n0\r\nT: 1\r\n\r\n")
    path = stage.on(lambda asked, raw: raw.send(data, cut=1, pause=0.0005) and None)
    got = service.get(path)
    assert (got.status, got.body, got.trailers) == (200, b"hello", [("T", "1")])


def test_app_resets_in_the_middle(service, stage):
    for sent in (b"", OK, OK + b"Content-Length: 9\r\n\r\nhalf"):
        def act(asked, raw):
            raw.send(sent)
            time.sleep(0.05)
            raw.reset()
            raise EOFError
        with service.connect() as raw:
            raw.send(request_bytes("POST", stage.on(act), body=b""))
            if b"9" in sent:
                with pytest.raises((EOFError, ConnectionError)):
                    raw.read()
            else:
                assert raw.read().status == 502


def test_app_closes_while_the_upload_runs(service, stage):
    def act(asked, raw):
        raw._exactly(1000)
        raise EOFError
    with service.connect() as raw:
        try:
            raw.send(head_of(stage.on(act), 60000) + b"x" * 50000)
            got = raw.read()
        except ConnectionError:
            pytest.fail("a reset instead of an answer")
        assert (got.status, got.get("connection")) == (502, "close")


def test_dead_idle_connection_is_no_error(service, stage):
    """An app may close a connection it is not asked on; nobody notices."""
    for _ in range(5):
        assert service.get("/act/x").status == 200
        stage.drop()
        assert service.get("/act/y").status == 200


def test_failed_get_is_repeated_and_post_is_not(service, stage):
    """One instance only: a request is never given to it twice but when its idle connection was dead."""
    path = stage.says(b"", close=True)
    got = service.post("/twice" + path, b"x")
    assert (got.status, got.get("stateway-error")) == (502, "app-closed")
    assert len(stage.asked_for(path)) == 1


def test_slow_app_on_the_only_instance_is_a_504(service, stage):
    go = threading.Event()
    path = stage.on(lambda asked, raw: go.wait(10) and answer(200))
    got = service.get("/twice" + path)
    go.set()
    assert (got.status, got.get("stateway-error")) == (504, "app-slow")


def test_bad_exchanges_harm_nobody_beside_them(service, stage):
    """Good clients work while others meet every kind of bad origin."""
    stop, wrong, done = threading.Event(), [], [0]

    def good(me):
        with service.connect() as raw:
            while not stop.is_set():
                want = f"/act/good/{me}/{done[0]}"
                got = raw.request("POST", want, body=b"g" * 100)
                if got.status != 200 or json.loads(got.body)["target"] != want:
                    wrong.append((want, got))
                done[0] += 1
    threads = [threading.Thread(target=good, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for data, close in list(BAD.values()) + list(CUT.values()):
        path = stage.says(data, close=close)
        with service.connect() as raw:
            raw.send(request_bytes("POST", path, body=b"x"))
            try:
                raw.read()
            except (EOFError, ConnectionError):
                pass
    stop.set()
    for t in threads:
        t.join(10)
    assert not wrong and done[0] > 20
