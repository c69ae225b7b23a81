"""Bugs that were: each test failed before its fix."""
import contextlib
import socket
import threading
import time

import pytest

from harness import Raw, wait_for


def answer(body=b"ok", *lines):
    head = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def one(origin, workers=1, **more):
    """A configuration with one server, and one worker: its budgets are then known."""
    config = {"apps": {"a": {"servers": [origin.address], **more.pop("app", {})}}, "workers": workers,
              "routes": [{"path": "/*", "app": "a", **more.pop("route", {"state": "none"})}], **more}
    return config


def in_use(g, what):
    """Of the workers' loops."""
    lines = g.admin("GET", "/metrics").body.decode().splitlines()
    return max(int(float(line.rpartition(" ")[2])) for line in lines
               if line.startswith(f"stateway_loop_{what}{{") and "main" not in line)


def stalled(g, request, receive_bytes=4096):
    """A client that asks and does not read."""
    raw = Raw.__new__(Raw)
    raw.socket, raw.buffer = socket.socket(), b""
    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    raw.socket.settimeout(20)
    raw.socket.connect(g.address)
    return raw.send(request)


def test_a_slow_app_is_not_asked_twice_on_a_reused_connection(gateway, origin):
    """A timeout was taken for an idle connection that had died: once more, beside every budget."""
    def respond(asked, raw):
        if asked.target == "/slow":
            time.sleep(3)
        return answer()
    o = origin(respond)
    g = gateway(one(o, timeouts={"response": "500ms"}, app={"retry": {"attempts": 0}}))
    with g.connect() as raw:
        assert raw.request("GET", "/").status == 200
        began = time.monotonic()
        got = raw.request("GET", "/slow")
    assert (got.status, got.get("stateway-error")) == (504, "app-slow")
    assert time.monotonic() - began < 0.95
    assert [a.target for a in o.asked].count("/slow") == 1


def test_a_busy_instance_is_no_lost_one(gateway, origin):
    """The pinned instance had all its connections in use: the visitor was sent elsewhere, its state called lost."""
    go = threading.Event()

    def respond(asked, raw):
        if asked.target == "/hold":
            go.wait(20)
        return answer()
    a, b = origin(respond), origin(respond)
    g = gateway({"apps": {"a": {"servers": [a.address, b.address], "limits": {"connections": 1, "pending": 0}}},
                 "workers": 1,
                 "routes": [{"path": "/*", "app": "a", "state": "sticky", "expose": ["verdict", "instance"]}]})
    first = g.get("/")
    pin = "; ".join(f"{k}={v}" for k, v in first.cookies().items())
    held = g.connect()
    held.send(f"GET /hold HTTP/1.1\r\nHost: x\r\nCookie: {pin}\r\n\r\n")
    wait_for(lambda: "/hold" in [r.target for r in a.asked + b.asked])
    got = g.get("/", headers=[("Cookie", pin)])
    assert (got.status, got.get("stateway-error"), got.all("set-cookie")) == (503, "pending-full", [])
    for _ in range(8):  # nor is it a failure: it would be ejected
        assert g.get("/", headers=[("Cookie", pin)]).status == 503
    time.sleep(1.5)
    assert {i["state"] for i in g.apps()["a"]} == {"healthy"}
    go.set()
    assert held.read().get("stateway-verdict") == "kept"
    got = g.get("/", headers=[("Cookie", pin)])
    assert (got.status, got.get("stateway-verdict")) == (200, "kept")
    assert got.get("stateway-instance") == first.get("stateway-instance")


def test_bytes_that_wait_do_not_hold_a_buffer_each(gateway, origin, engine):
    """What is pipelined byte by byte behind a slow request held 16 KiB a byte, up to all buffers of the worker."""
    go = threading.Event()
    o = origin(lambda asked, raw: answer() if go.wait(30) else None)
    g = gateway(one(o), engine=engine)
    before = in_use(g, "buffers")
    with g.connect() as raw:
        raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: o.asked)
        for byte in ("GET /" + "x" * 1500):
            raw.send(byte)
            time.sleep(0.0003)
        assert in_use(g, "buffers") - before < 100
        go.set()
        assert raw.read().status == 200


@pytest.mark.parametrize("minor", [1, 0])
def test_small_chunks_for_a_slow_reader_take_few_pieces(gateway, origin, minor):
    """Each chunk that waited took three pieces of the loop's budget, or a buffer: one reader could stop all."""
    stop = threading.Event()

    def respond(asked, raw):
        if asked.target == "/":
            return answer()
        raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        raw.socket.settimeout(0.2)
        block = b"1\r\nx\r\n" * 4000
        while not stop.is_set():
            try:
                raw.socket.send(block)
            except socket.timeout:
                pass
        raise EOFError
    o = origin(respond)
    g = gateway(one(o))
    with contextlib.closing(stalled(g, f"GET /chunks HTTP/1.{minor}\r\nHost: x\r\n\r\n")):
        seen, until = [], time.monotonic() + 6
        while time.monotonic() < until:
            seen.append(in_use(g, "pieces"))
            time.sleep(0.2)
        assert max(seen) < 500, max(seen)
        assert g.get("/").status == 200
    stop.set()


def test_half_closed_pipeline_is_answered_whole(gateway, origin):
    """Requests that waited for a slow reader were forgotten when the client had said that no more would come."""
    body, go = b"x" * 3000, threading.Event()
    o = origin(lambda asked, raw: answer(body) if go.wait(20) else None)
    g = gateway(one(o))
    count = 2200  # more than the kernel takes for a client that does not read, in less than 64 KiB
    with contextlib.closing(stalled(g, "GET / HTTP/1.1\r\nHost: x\r\n\r\n" * count)) as raw:
        raw.shutdown()
        wait_for(lambda: o.asked)
        time.sleep(0.3)
        go.set()
        wait_for(lambda: in_use(g, "pieces") > 0)
        time.sleep(0.5)
        got = 0
        with contextlib.suppress(EOFError):
            for _ in range(count):
                assert raw.read().body == body
                got += 1
        assert got == count
        assert raw.is_closed()


@pytest.mark.parametrize("keep", [True, False])
def test_stop_lets_a_slow_reader_have_his_answer(gateway, origin, engine, keep):
    """What the gateway still had in hand of an answer was dropped at the stop: the answer was cut."""
    full, done = threading.Event(), threading.Event()

    def respond(asked, raw):
        raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not full.is_set():  # what the kernel takes, and some of what the gateway may hold
            raw.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
            full.wait(0.005)
        raw.send("0\r\n\r\n")
        done.set()
    o = origin(respond)
    g = gateway(one(o, timeouts={"stop": "10s"}), engine=engine)
    line = "" if keep else "Connection: close\r\n"
    with contextlib.closing(stalled(g, f"GET / HTTP/1.1\r\nHost: x\r\n{line}\r\n")) as raw:
        wait_for(lambda: in_use(g, "pieces") > 0)
        full.set()
        assert done.wait(10)
        wait_for(lambda: "stateway_exchanges_in_progress 0" in g.admin("GET", "/metrics").body.decode())
        end = threading.Thread(target=g.stop)
        end.start()
        time.sleep(0.5)
        assert raw.read().complete
        end.join()
    g.check()


@pytest.mark.parametrize("key, path, headers", [
    ("query.room", "/?room=a&room=b", []), ("query.room", "/?room=b&ro%6Fm=a", []),
    ("header.X-Room", "/", [("X-Room", "a"), ("x-room", "b")]),
    ("header.X-Room", "/", [("X-Room", "a"), ("X_Room", "b")]),
])
def test_a_key_that_is_named_twice_is_none(gateway, origin, key, path, headers):
    """The gateway took the first, many an app takes the last: it worked on b and was handed the state of a."""
    o = origin(lambda asked, raw: answer())
    g = gateway(one(o, route={"state": "session", "session": {"key": key}}))
    got = g.get(path, headers=headers)
    assert (got.status, got.get("stateway-error"), o.asked) == (400, "key", [])
    assert g.get("/?x=1&room=a&y", headers=[("X-Room", "a")]).status == 200
