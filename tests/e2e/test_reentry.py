"""Apps that call back through the gateway while they hold a key: never a wait for oneself."""
import base64
import concurrent.futures
import os
import threading
import time
import uuid

import pytest

from harness import Gateway, Origin, answer, wait_for

WAIT_S = 1.0  # of the queue


class App(Origin):
    """on(path, act): act(asked) answers requests to that path."""

    def __init__(self):
        self.acts = {}
        super().__init__(lambda asked, raw: self.acts.get(asked.target.split("?")[0], lambda asked: answer(200))(asked))


@pytest.fixture(scope="module")
def apps():
    made = [App(), App()]
    yield made
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def world(apps):
    queue = {"length": 8, "wait": f"{int(WAIT_S * 1000)}ms"}
    with Gateway({"apps": {"a": {"servers": [apps[0].address]}, "b": {"servers": [apps[1].address]}},
                  "routes": [{"path": f"/{name}/{{room}}/*", "app": name, "state": "session",
                              "session": {"key": "path.room", "queue": dict(queue)}} for name in "ab"] +
                            [{"path": "/v/*", "app": "a", "state": "session", "session": {"queue": dict(queue)}},
                             {"path": "/none/*", "app": "b"}]}) as gateway:
        gateway.a, gateway.b = apps
        yield gateway


def trace_of(asked):
    """What an app passes on, as it came."""
    return [(k, v) for k, v in asked.headers if k.lower() == "stateway-trace"]


def timed(function, *args, **options):
    began = time.monotonic()
    return function(*args, **options), time.monotonic() - began


def name():
    return uuid.uuid4().hex


def test_the_header_is_there(world):
    room, seen = name(), []
    world.a.acts[f"/a/{room}/x"] = lambda asked: (seen.append(asked), answer(200))[1]
    assert world.post(f"/a/{room}/x").status == 200
    assert world.post(f"/a/{room}/x").status == 200
    traces = [trace_of(asked) for asked in seen]
    assert all(len(t) == 1 and t[0][1] for t in traces)
    assert traces[0] != traces[1]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_same_key_with_the_trace(world, method):
    """423 at once, and the first request goes on."""
    room, told = name(), {}

    def outer(asked):
        told["inner"], told["took"] = timed(world.request, method, f"/a/{room}/inner", trace_of(asked), b"")
        return answer(200, b"done", [("Stateway-Set", '{"n":1}')])
    world.a.acts[f"/a/{room}/outer"] = outer
    before = len(world.a.asked)
    got = world.post(f"/a/{room}/outer")
    assert (got.status, got.body) == (200, b"done")
    assert (told["inner"].status, told["inner"].get("stateway-error")) == (423, "re-entry")
    assert told["took"] < WAIT_S / 2
    assert len([a for a in world.a.asked[before:] if a.target.endswith("/inner")]) == 0
    assert world.post(f"/a/{room}/inner").status == 200  # free again


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reads_are_fine(world, method):
    """They run beside, on what is committed."""
    room, told = name(), {}

    def outer(asked):
        told["inner"] = world.request(method, f"/a/{room}/inner", trace_of(asked))
        return answer(200, b"", [("Stateway-Set", '{"n":2}')])
    world.a.acts[f"/a/{room}/set"] = lambda asked: answer(200, b"", [("Stateway-Set", '{"n":1}')])
    world.a.acts[f"/a/{room}/outer"] = outer
    world.a.acts[f"/a/{room}/inner"] = lambda asked: answer(200, asked.get("stateway-state"))
    assert world.post(f"/a/{room}/set").status == 200
    assert world.post(f"/a/{room}/outer").status == 200
    assert told["inner"].status == 200
    assert method == "HEAD" or told["inner"].body == b'{"n":1}'
    assert world.get(f"/a/{room}/inner").body == b'{"n":2}'


def test_a_read_that_writes(world):
    """GET with an update: not beside its own writer for ever."""
    room, told = name(), {}

    def outer(asked):
        told["inner"], told["took"] = timed(world.get, f"/a/{room}/inner", headers=trace_of(asked))
        return answer(200, b"", [("Stateway-Patch", '{"outer":1}')])
    world.a.acts[f"/a/{room}/outer"] = outer
    world.a.acts[f"/a/{room}/inner"] = lambda asked: answer(200, b"", [("Stateway-Patch", '{"inner":1}')])
    got, took = timed(world.post, f"/a/{room}/outer")
    assert took < WAIT_S * 2
    # the read was first: then the holder met a newer version; or it was refused. Not both lost, not both hidden
    assert {got.status, told["inner"].status} <= {200, 409, 423}
    assert 200 in (got.status, told["inner"].status)


def test_without_the_trace(world):
    """It waits in line, as anybody, until the queue's wait is over."""
    room, told = name(), {}

    def outer(asked):
        told["inner"], told["took"] = timed(world.post, f"/a/{room}/inner")
        return answer(200)
    world.a.acts[f"/a/{room}/outer"] = outer
    assert world.post(f"/a/{room}/outer").status == 200
    assert (told["inner"].status, told["inner"].get("stateway-error")) == (503, "queue-wait")
    assert WAIT_S * 0.9 < told["took"] < WAIT_S * 3


def test_other_keys(world):
    room, told = name(), {}

    def outer(asked):
        told["same name, other app"] = world.post(f"/b/{room}/x", headers=trace_of(asked)).status
        told["other name"] = world.post(f"/a/{name()}/x", headers=trace_of(asked)).status
        told["no key"] = world.post("/none/x", headers=trace_of(asked)).status
        return answer(200)
    world.a.acts[f"/a/{room}/outer"] = outer
    assert world.post(f"/a/{room}/outer").status == 200
    assert set(told.values()) == {200}


@pytest.mark.parametrize("way", ["/b/{}/x", "/none/{}"])
def test_a_chain_of_two(world, way):
    """a (holds its room) -> b (holds another, or nothing) -> a's room: 423, whoever is in between."""
    room, between, told = name(), way.format(name()), {}

    def outer(asked):
        told["b"], told["took"] = timed(world.post, between, headers=trace_of(asked))
        return answer(200, b"a")

    def through(asked):
        told["traces"] = len(trace_of(asked))
        told["back"] = world.post(f"/a/{room}/inner", headers=trace_of(asked))
        told["own"] = world.post(between, headers=trace_of(asked)) if "/b/" in between else None
        return answer(200, b"b")
    world.a.acts[f"/a/{room}/outer"] = outer
    world.b.acts[between] = through
    got = world.post(f"/a/{room}/outer")
    assert (got.status, got.body, told["b"].body) == (200, b"a", b"b")
    assert (told["back"].status, told["back"].get("stateway-error")) == (423, "re-entry")
    assert told["own"] is None or told["own"].status == 423
    assert told["took"] < WAIT_S
    assert told["traces"] == 1


def test_a_chain_that_forgets(world):
    room, other, told = name(), name(), {}

    def through(asked):
        told["back"] = world.post(f"/a/{room}/inner")  # as most do
        return answer(200)
    world.a.acts[f"/a/{room}/outer"] = lambda asked: answer(world.post(f"/b/{other}/x", headers=trace_of(asked)).status)
    world.b.acts[f"/b/{other}/x"] = through
    assert world.post(f"/a/{room}/outer").status == 200
    assert (told["back"].status, told["back"].get("stateway-error")) == (503, "queue-wait")


def test_who_waits_for_whom(world):
    """Two requests that each hold a key and call for the other's: both waits end, by the queue's time at the latest."""
    one, two, told = name(), name(), {}
    both = threading.Barrier(2)

    def outer(mine, other):
        def act(asked):
            both.wait(5)
            told[mine], told[mine + " took"] = timed(world.post, f"/a/{other}/inner", headers=trace_of(asked))
            return answer(200)
        return act
    world.a.acts[f"/a/{one}/outer"], world.a.acts[f"/a/{two}/outer"] = outer("one", two), outer("two", one)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        got = [f.result(20) for f in [pool.submit(world.post, f"/a/{room}/outer") for room in (one, two)]]
    assert [g.status for g in got] == [200, 200]
    for who in ("one", "two"):
        assert told[who].status in (200, 423, 503)
        assert told[who + " took"] < WAIT_S * 3
    assert {told["one"].status, told["two"].status} != {200}


def test_visitors(world):
    cookies, told = {}, {}

    def outer(asked):
        told["inner"], told["took"] = timed(world.post, "/v/inner", headers=trace_of(asked), cookies=dict(cookies))
        told["other"] = world.post("/v/inner", headers=trace_of(asked))
        return answer(200, b"", [("Stateway-Patch", '{"m":1}')])
    world.a.acts["/v/set"] = lambda asked: answer(200, b"", [("Stateway-Set", '{"n":1}')])
    world.a.acts["/v/outer"] = outer
    assert world.post("/v/set", cookies=cookies).status == 200
    assert world.post("/v/outer", cookies=cookies).status == 200
    assert (told["inner"].status, told["took"] < WAIT_S) == (423, True)
    assert told["other"].status == 200


def test_renewed_id(world):
    """The old id leads to the same state, so to the same line."""
    cookies, told = {}, {}

    def outer(asked):
        for which in (old, new):
            told[len(told)] = timed(world.post, "/v/inner", headers=trace_of(asked), cookies=dict(which))
        return answer(200)
    world.a.acts["/v/set"] = lambda asked: answer(200, b"", [("Stateway-Set", '{"n":1}')])
    world.a.acts["/v/renew"] = lambda asked: answer(200, b"", [("Stateway-Renew", "?1")])
    world.a.acts["/v/outer"] = outer
    world.post("/v/set", cookies=cookies)
    old = dict(cookies)
    world.post("/v/renew", cookies=cookies)
    new = dict(cookies)
    assert old != new
    assert world.post("/v/outer", cookies=dict(old)).status == 200
    for got, took in told.values():
        assert (got.status, took < WAIT_S) == (423, True)


@pytest.mark.parametrize("trace", ["", "x", ",,,", "=" * 100, "AAAAAAAAAAA",
                                   base64.urlsafe_b64encode(os.urandom(8)).decode().rstrip("="),
                                   ", ".join(["AAAAAAAAAAE"] * 5), "\u00e9", "x" * 4000], ids=range(9))
def test_traces_of_clients_mean_nothing(world, trace):
    room = name()
    world.a.acts[f"/a/{room}/x"] = lambda asked: answer(200, str(len(trace_of(asked))))
    got = world.post(f"/a/{room}/x", headers=[("Stateway-Trace", trace)])
    assert (got.status, got.body) == (200, b"1")


def test_a_dead_trace_blocks_nothing(world):
    """Kept beyond its request: whoever sends it later is like anybody."""
    room, kept = name(), []
    world.a.acts[f"/a/{room}/x"] = lambda asked: (kept.extend(trace_of(asked)), answer(200))[1]
    assert world.post(f"/a/{room}/x").status == 200
    for _ in range(3):
        assert world.post(f"/a/{room}/x", headers=kept[:1]).status == 200


def test_too_deep(world):
    """An app that calls itself on and on, each time for a new key: ends with 423, not with the last connection."""
    depth = []

    def deeper(asked):
        depth.append(len(depth))
        if len(depth) > 60:
            return answer(200, b"never ends")
        return answer(world.post(f"/a/{name()}/deeper", headers=trace_of(asked)).status)

    class Any(dict):
        def get(self, path, default=None):
            return deeper if path.endswith("/deeper") else super().get(path, default)
    before, world.a.acts = world.a.acts, Any(world.a.acts)
    try:
        got = world.post(f"/a/{name()}/deeper")
    finally:
        world.a.acts = before
    assert got.status == 423
    assert 8 <= len(depth) <= 20


def test_long_holders_and_crowds(world):
    """While one holds the key and calls back, strangers wait in line and get their turn."""
    room, inside, told = name(), threading.Event(), []

    def outer(asked):
        inside.set()
        time.sleep(0.3)
        told.append(world.post(f"/a/{room}/inner", headers=trace_of(asked)).status)
        return answer(200)
    world.a.acts[f"/a/{room}/outer"] = outer
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        first = pool.submit(world.post, f"/a/{room}/outer")
        assert inside.wait(5)
        rest = [pool.submit(world.post, f"/a/{room}/inner") for _ in range(5)]
        assert first.result().status == 200
        assert [f.result().status for f in rest] == [200] * 5
    assert told == [423]
    wait_for(lambda: "stateway_exchanges_in_progress 0" in world.admin("GET", "/metrics").body.decode())
