"""Apps that handle their state badly on the wire: wherever an update stands that is not the final head, it is none."""
import concurrent.futures
import json
import time

import pytest

import harness
from harness import Gateway, Origin, answer, wait_for

SET = "Stateway-Set: {\"n\":2}\r\n"


@pytest.fixture(scope="module", params=["uring", "epoll"])
def world(request):
    if request.param not in harness.engines() or (request.param == "uring" and not harness.has_uring()):
        pytest.skip("this engine is not to be had")
    said = {"bytes": b""}

    def respond(asked, raw):
        if asked.target == "/init":
            return answer(200, b"", [("Stateway-Set", '{"n":1}')])
        if asked.target == "/state":
            return answer(200, json.dumps({"state": asked.get("stateway-state")}))
        what = said["bytes"](asked, raw) if callable(said["bytes"]) else said["bytes"]
        if what is not None:
            raw.send(what)
            if said.get("close"):
                raw.close()
        return None

    origin = Origin(respond)
    with Gateway({"apps": {"o": {"servers": [origin.address]}}, "timeouts": {"response": "2s"},
                  "routes": [{"path": "/*", "app": "o", "state": "session", "expose": ["verdict"]}]},
                 engine=request.param) as gateway:
        gateway.said = said
        yield gateway
    origin.close()


def visitor(world):
    cookies = {}
    assert world.post("/init", cookies=cookies).status == 200
    return cookies


def state(world, cookies):
    return world.get("/state", cookies=cookies).json()["state"]


def ask(world, data, method="POST", close=False, cookies=None):
    world.said.update(bytes=data.encode("latin-1") if isinstance(data, str) else data, close=close)
    cookies = visitor(world) if cookies is None else cookies
    return world.request(method, "/x", body=b"" if method == "POST" else None, cookies=cookies), cookies


OK = "HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("data, status, committed", [
    # not in the final head
    (f"HTTP/1.1 103 Early Hints\r\n{SET}\r\n{OK}Content-Length: 0\r\n\r\n", 200, False),
    (f"HTTP/1.1 100 Continue\r\n{SET}\r\n{OK}Content-Length: 0\r\n\r\n", 200, False),
    (f"{OK}Transfer-Encoding: chunked\r\nTrailer: Stateway-Set\r\n\r\n0\r\n{SET}\r\n", 200, False),
    (f"{OK}Content-Length: 24\r\n\r\n" + "Stateway-Set: {\"n\":2}\r\n\r\n"[:24], 200, False),
    # in it, in other shapes
    (f"HTTP/1.0 200 OK\r\n{SET}Content-Length: 0\r\n\r\n", 200, True),
    (f"{OK}sTaTeWaY-sEt:{{\"n\":2}}   \r\nContent-Length: 0\r\n\r\n", 200, True),
    (f"HTTP/1.1 204 No Content\r\n{SET}\r\n", 204, True),
    (f"HTTP/1.1 304 Not Modified\r\n{SET}\r\n", 304, True),
    (f"{OK}{SET}Connection: Stateway-Set, close\r\nContent-Length: 0\r\n\r\n", 200, True),
    # names that are nearly right are nobody's
    (f"{OK}Stateway_Set: {{\"n\":2}}\r\nContent-Length: 0\r\n\r\n", 200, False),
    (f"{OK}X-Stateway-Set: {{\"n\":2}}\r\nContent-Length: 0\r\n\r\n", 200, False),
    (f"{OK}Stateway-Sets: {{\"n\":2}}\r\nContent-Length: 0\r\n\r\n", 200, False),
    # twice, in two spellings
    (f"{OK}{SET}stateway-set: {{\"n\":3}}\r\nContent-Length: 0\r\n\r\n", 502, False),
    # broken heads
    (f"{OK}{SET}Content-Length: 0\r\nContent-Length: 1\r\n\r\n", 502, False),
    (f"{OK}Stateway-Set: {{\"n\":2\r\n ,\"m\":3}}\r\nContent-Length: 0\r\n\r\n", 502, False),
    (f"{OK}Stateway-Set: {{\"n\":\0}}\r\nContent-Length: 0\r\n\r\n", 502, False),
    (f"{OK}{SET}Content-Length: 0\r\nX: {'x' * 70000}\r\n\r\n", 502, False),
])
def test_where_an_update_counts(world, data, status, committed):
    got, cookies = ask(world, data)
    assert got.status == status, got
    assert state(world, cookies) == ('{"n":2}' if committed else '{"n":1}')
    assert not any(k.lower().startswith("stateway-set") for k, _ in got.headers + got.trailers)


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_a_head_that_ends_early_commits_nothing(world, cut):
    data = f"{OK}{SET}Content-Length: 0\r\n\r\n"
    got, cookies = ask(world, data[:len(data) - 1 - cut], close=True)
    assert (got.status, got.get("stateway-error")) == (502, "app-closed")
    assert state(world, cookies) == '{"n":1}'


def test_a_body_that_ends_early_was_committed(world):
    """The update was durable before the first byte; the client sees that the body is not whole."""
    cookies = visitor(world)
    with pytest.raises((EOFError, ConnectionError)):
        ask(world, f"{OK}{SET}Content-Length: 100\r\n\r\nhalf", close=True, cookies=cookies)
    assert state(world, cookies) == '{"n":2}'


def test_an_answer_after_the_deadline_commits_nothing(world):
    def late(_, raw):
        time.sleep(2.6)
        raw.send(f"{OK}{SET}Content-Length: 0\r\n\r\n")

    got, cookies = ask(world, late)
    assert (got.status, got.get("stateway-error")) == (504, "app-slow")
    time.sleep(1)
    assert state(world, cookies) == '{"n":1}'
    # and the key is free again
    assert ask(world, f"{OK}{SET}Content-Length: 0\r\n\r\n", cookies=cookies)[0].status == 200
    assert state(world, cookies) == '{"n":2}'


def test_an_answer_before_the_body_is_read(world):
    """The app does not care for the upload: its update counts all the same."""
    cookies = visitor(world)
    world.said.update(bytes=f"{OK}{SET}Content-Length: 2\r\nConnection: close\r\n\r\nok".encode(), close=True)
    with world.connect() as raw:
        raw.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
                 f"Cookie: sid={cookies['sid']}\r\n\r\nabc")
        assert raw.read().body == b"ok"
    wait_for(lambda: state(world, cookies) == '{"n":2}', 3)


def test_an_app_that_calls_itself_does_not_hang_for_ever(world):
    """It asks the gateway for the same visitor while it holds him: a read works; a write waits its turn and is refused."""
    inner = {}

    def reentrant(asked, raw):
        if asked.method == "POST" and not inner:
            inner["read"] = world.get("/state", cookies=cookies).json()["state"]
            raw.send(f"{OK}{SET}Content-Length: 0\r\n\r\n")
            return None
        return answer(200, b"")

    cookies = visitor(world)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        got, _ = pool.submit(ask, world, reentrant, cookies=cookies).result(20)
    assert got.status == 200
    assert inner["read"] == '{"n":1}'
    assert state(world, cookies) == '{"n":2}'
