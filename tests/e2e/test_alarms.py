"""Alarms: an app is called back at its time, with the state, at least once.

What it then writes happens exactly once.
"""
import json
import os
import re
import signal
import threading
import time
import uuid

import pytest

import harness
from harness import Gateway, Origin, answer, request_bytes, wait_for


class App(Origin):
    """A client's POST says what to answer in X-Say (JSON: status, headers, delay). Deliveries are kept."""

    def __init__(self, path=None):
        self.deliveries, self.on_alarm = [], {}
        super().__init__(self._act, path)

    def _act(self, asked, raw):
        if asked.target.startswith("/alarms") and asked.get("stateway-alarm"):
            asked.at = time.monotonic()
            self.deliveries.append(asked)
            act = self.on_alarm.get(asked.get("stateway-key"))
            return act(asked, raw) if act else answer(200)
        say = json.loads(asked.get("x-say", "{}"))
        time.sleep(say.get("delay", 0))
        told = {k.lower(): v for k, v in asked.headers if k.lower().startswith("stateway")}
        return answer(say.get("status", 200), json.dumps(told), [tuple(pair) for pair in say.get("headers", [])])

    def of(self, key):
        return [d for d in self.deliveries if d.get("stateway-key") == key]


def routes(app):
    session = {"key": "path.room", "alarm": "/alarms"}
    return {"apps": {"a": {"servers": [app.address]}},
            "routes": [{"path": "/room/{room}", "app": "a", "state": "session", "session": session},
                       {"path": "/none/{room}", "app": "a", "state": "session", "session": {"key": "path.room"}},
                       {"path": "/alarms", "app": "a"},
                       {"path": "/v/*", "app": "a", "state": "session", "session": {"alarm": "/alarms"}}],
            "timeouts": {"response": "3s"}}


@pytest.fixture(scope="module")
def app():
    origin = App()
    yield origin
    origin.close()


@pytest.fixture(scope="module")
def world(app):
    with Gateway(routes(app)) as gateway:
        # One that fails each time: 2 + 4 + 8 + 16 + 32 s; looked at by the last test of this file.
        gateway.doomed = Room(gateway, app)
        app.on_alarm[gateway.doomed.key] = lambda asked, raw: answer(500)
        gateway.doomed_since = time.monotonic()
        gateway.doomed.set({"n": 1}, "in=0;id=doomed")
        yield gateway


class Room:
    def __init__(self, gateway, app, base="/room"):
        self.gateway, self.app, self.name = gateway, app, uuid.uuid4().hex[:12]
        self.path, self.key = f"{base}/{self.name}", f"room:{self.name}"

    def say(self, *headers, status=200, **more):
        return self.gateway.post(self.path, headers=[("X-Say", json.dumps({"status": status, "headers": headers,
                **more}))])

    def set(self, state, *alarms, **more):
        got = self.say(*([("Stateway-Set", json.dumps(state))] if state is not None else []),
                       *[("Stateway-Alarm", text) for text in alarms], **more)
        return got

    def state(self):
        told = self.gateway.get(self.path).json()
        return json.loads(told["stateway-state"]) if "stateway-state" in told else None

    @property
    def heard(self):
        return self.app.of(self.key)

    def wait(self, count=1, seconds=10):
        wait_for(lambda: len(self.heard) >= count, seconds,
                 f"{count} deliveries for {self.key}, there are {len(self.heard)}")
        return self.heard[count - 1]


@pytest.fixture
def room(world, app):
    return Room(world, app)


def now_ms():
    return int(time.time() * 1000)


# ---- set, replace, cancel ----


def test_delivered_in_time(room):
    began = time.monotonic()
    got = room.set({"n": 1}, 'in=700;id=turn;data="next; \\"player\\""')
    assert got.status == 200
    assert not [k for k, _ in got.headers if k.lower().startswith("stateway-")]
    heard = room.wait()
    assert 0.69 < heard.at - began < 2.5
    assert (heard.method, heard.target, heard.body) == ("POST", "/alarms", b"")
    assert heard.get("stateway-state") == '{"n":1}'
    assert heard.get("stateway-mode") == "exclusive"
    said = heard.get("stateway-alarm")
    assert said.split(";")[0].strip() == "id=turn"
    assert re.search(r";\s*attempt=1(;|$)", said), said
    assert 'data="next; \\"player\\""' in said
    assert heard.get("host")
    time.sleep(0.5)
    assert len(room.heard) == 1  # and that was it
    assert room.state() == {"n": 1}


def test_at_a_wall_time(room):
    at = now_ms() + 600
    room.set({}, f"at={at};id=a")
    room.wait()
    assert now_ms() >= at
    assert now_ms() < at + 2000


def test_one_that_passed_is_due_now(room):
    room.set({}, f"at={now_ms() - 100000};id=a", "in=0;id=b")
    room.wait(2)
    assert {h.get("stateway-alarm").split(";")[0] for h in room.heard} == {"id=a", "id=b"}


def test_without_id(room):
    room.set({}, "in=100")
    assert room.wait().get("stateway-alarm").startswith("id=alarm")


def test_replace(room):
    """The same id: the later one counts, whether it is earlier or later in time."""
    room.set({"n": 1}, "in=300;id=t;data=\"one\"")
    room.set({"n": 2}, "in=900;id=t;data=\"two\"")
    began = time.monotonic()
    heard = room.wait()
    assert heard.at - began > 0.7
    assert 'data="two"' in heard.get("stateway-alarm")
    assert heard.get("stateway-state") == '{"n":2}'
    room.set({"n": 3}, "in=60000;id=t")
    room.set({"n": 4}, "in=200;id=t")
    room.wait(2, 3)
    time.sleep(0.4)
    assert len(room.heard) == 2


def test_twice_in_one_answer(room):
    room.set({}, "in=200;id=t;data=\"one\"", "in=300;id=t;data=\"two\"")
    assert 'data="two"' in room.wait().get("stateway-alarm")
    time.sleep(0.4)
    assert len(room.heard) == 1


def test_cancel(room):
    room.set({}, "in=400;id=a", "in=500;id=b")
    assert room.set(None, "cancel;id=a").status == 200
    assert room.set(None, "cancel;id=never").status == 200
    room.wait()
    time.sleep(0.5)
    assert [h.get("stateway-alarm").split(";")[0] for h in room.heard] == ["id=b"]


def test_without_an_update(room):
    """An alarm alone: the state stays as it is."""
    room.set({"n": 1})
    assert room.set(None, "in=200;id=a").status == 200
    assert room.wait().get("stateway-state") == '{"n":1}'
    assert room.state() == {"n": 1}


def test_later_writes_keep_it(room):
    room.set({"n": 1}, "in=900;id=a")
    for n in range(2, 6):
        room.set({"n": n})
    room.say(("Stateway-Patch", '{"m":1}'))
    assert json.loads(room.wait().get("stateway-state")) == {"n": 5, "m": 1}


def test_a_failed_answer_sets_none(room):
    room.set({"n": 1})
    assert room.set({"n": 2}, "in=100;id=a", status=500).status == 500
    assert room.say(("Stateway-Set", "{"), ("Stateway-Alarm", "in=100;id=a")).status == 502
    assert room.say(("Stateway-Set", '{"n":3}'), ("Stateway-Expect", '"1-1"'),
                    ("Stateway-Alarm", "in=100;id=a")).status == 409
    time.sleep(0.6)
    assert room.heard == []
    assert room.state() == {"n": 1}


@pytest.mark.parametrize("text", [
    "", "in", "in=", "in=-1", "in=x", "in=1.5", "in=1;id=", "in=1;id=a b", f"in=1;id={'a' * 33}",
    "in=1;at=2;id=a", "at=x", "in=1;what=2",
    "cancel=1", "in=1;id=a;id=b", f"in=1;id=a;data=\"{'x' * 513}\"", "in=1;data=unquoted", 'in=1;data="open',
    "in=999999999999999999",
    "in=1,in=2", "id=a"])
def test_malformed(room, text):
    room.set({"n": 1})
    got = room.set({"n": 2}, text)
    assert (got.status, got.get("stateway-error")) == (502, "update-alarm")
    assert room.state() == {"n": 1}
    assert room.heard == []


def test_eight_are_the_most(room):
    assert room.set({"n": 1}, *[f"in=60000;id=i{n}" for n in range(8)]).status == 200
    got = room.set({"n": 2}, "in=60000;id=ninth")
    assert (got.status, got.get("stateway-error")) == (502, "update-alarm")
    assert room.state() == {"n": 1}
    assert room.set({"n": 3}, "in=60000;id=i7").status == 200  # in place of one
    assert room.set({"n": 4}, "cancel;id=i0", "in=200;id=ninth").status == 200
    assert room.wait().get("stateway-alarm").startswith("id=ninth")


def test_longest_of_all(room):
    data = "".join(chr(0x23 + n % 0x39) for n in range(512))
    assert room.set({}, *[f'in=100;id={str(n) * 32};data="{data}"' for n in range(8)]).status == 200
    room.wait(8)
    for heard in room.heard:
        assert f'data="{data}"' in heard.get("stateway-alarm")


def test_route_without_a_path(world, app):
    nowhere = Room(world, app, "/none")
    got = nowhere.set({"n": 1}, "in=100;id=a")
    assert (got.status, got.get("stateway-error")) == (502, "update-alarm")
    assert nowhere.state() is None


def test_clients_cannot_ring(world, app):
    """The name is ours; and the path is the app's, where a client may come, but not as an alarm."""
    before = len(app.deliveries)
    for name in ("Stateway-Alarm", "stateway_alarm", "STATEWAY-ALARM"):
        got = world.post("/alarms", headers=[(name, "id=x;attempt=1"), ("Stateway-Key", "room:1"),
                                             ("Stateway-State", "{}")])
        assert got.status == 200
        assert "stateway-alarm" not in got.json() and "stateway-key" not in got.json()
    assert len(app.deliveries) == before


# ---- what the delivery does ----


def test_its_update_commits(room, app):
    """A clock of its own: each delivery counts and sets the next one."""
    def tick(asked, raw):
        n = json.loads(asked.get("stateway-state"))["n"] + 1
        more = [("Stateway-Alarm", "in=100;id=tick")] if n < 5 else []
        return answer(200, b"", [("Stateway-Set", json.dumps({"n": n})), *more])
    app.on_alarm[room.key] = tick
    room.set({"n": 1}, "in=100;id=tick")
    wait_for(lambda: room.state() == {"n": 5})
    time.sleep(0.5)
    assert room.state() == {"n": 5}
    assert len(room.heard) == 4
    assert [h.get("stateway-alarm").split("attempt=")[1][:1] for h in room.heard] == ["1"] * 4


def test_it_may_end_the_state(room, app):
    app.on_alarm[room.key] = lambda asked, raw: answer(200, b"", [("Stateway-Delete", "?1")])
    room.set({"n": 1}, "in=100;id=a", "in=600;id=b")
    room.wait()
    wait_for(lambda: room.state() is None)
    time.sleep(0.9)
    assert len(room.heard) == 1  # the other one ended with the state


@pytest.mark.parametrize("status", [204, 302, 404, 410])
def test_an_answer_below_500_is_enough(room, app, status):
    app.on_alarm[room.key] = lambda asked, raw: answer(status)
    room.set({"n": 1}, "in=50;id=a")
    room.wait()
    time.sleep(2.6)
    assert len(room.heard) == 1


def test_it_waits_for_its_turn(room, app):
    """A request of that key runs: the delivery comes after it, with what that wrote."""
    room.set({"n": 1}, "in=200;id=a")
    began = time.monotonic()
    room.set({"n": 2}, delay=1.0)
    heard = room.wait()
    assert heard.at - began >= 1.0
    assert heard.get("stateway-state") == '{"n":2}'


def test_others_wait_for_it(room, app):
    inside, go = threading.Event(), threading.Event()

    def slow(asked, raw):
        inside.set()
        go.wait(5)
        return answer(200, b"", [("Stateway-Set", '{"n":2}')])
    app.on_alarm[room.key] = slow
    room.set({"n": 1}, "in=50;id=a")
    assert inside.wait(5)
    assert room.state() == {"n": 1}  # reads do not wait
    told = {}
    writer = threading.Thread(target=lambda: told.update(room.say(("Stateway-Patch", '{"m":1}')).json()))
    writer.start()
    time.sleep(0.3)
    assert not told
    go.set()
    writer.join()
    assert told["stateway-state"] == '{"n":2}'
    assert room.state() == {"n": 2, "m": 1}


def test_cancelled_while_it_is_due(room, app):
    """A running request cancels what comes due meanwhile: it does not ring after that."""
    room.set({"n": 1}, "in=300;id=a")
    room.set({"n": 2}, "cancel;id=a", delay=0.8)
    time.sleep(0.8)
    assert room.heard == []


def test_large_state_comes_by_reference(room):
    room.set({"x": "y" * 5000}, "in=100;id=a")
    heard = room.wait()
    assert heard.get("stateway-state") is None
    assert heard.get("stateway-state-info") == "ref;type=json;size=5008"
    assert heard.get("stateway-ref")


def test_by_envelope(world, app):
    room = Room(world, app)
    body = json.dumps({"state": {"set": {"n": 1}}, "alarms": ["in=100;id=e"], "response": {"status": 201}})
    before, app.respond = app.respond, lambda asked, raw: (
        answer(200, body, [("Content-Type", "application/stateway-commit+json")]) if asked.target == room.path
        else before(asked, raw))
    try:
        assert world.post(room.path).status == 201
    finally:
        app.respond = before
    assert room.wait().get("stateway-alarm").startswith("id=e")


def test_many_at_once(world, app):
    """Two hundred keys in one moment: each rings once."""
    rooms = [Room(world, app) for _ in range(200)]
    at = now_ms() + 2500
    for one in rooms:
        assert one.set({"n": 0}, f"at={at};id=a").status == 200
    keys = {one.key for one in rooms}
    wait_for(lambda: len([d for d in app.deliveries if d.get("stateway-key") in keys]) >= 200, 15)
    time.sleep(0.5)
    heard = [d.get("stateway-key") for d in app.deliveries if d.get("stateway-key") in keys]
    assert sorted(heard) == sorted(keys)


# ---- states that end, visitors ----


def test_no_delivery_for_what_ended(room):
    room.set({"n": 1}, "in=500;id=a")
    assert room.say(("Stateway-Delete", "?1")).status == 200
    time.sleep(1.0)
    assert room.heard == []
    # made anew it does not inherit the alarm
    assert room.set({"n": 2}).status in (200, 409)
    time.sleep(0.3)
    assert room.heard == []


def test_no_delivery_for_what_expired(room):
    room.say(("Stateway-Set", '{"n":1}'), ("Stateway-TTL", "1"), ("Stateway-Alarm", "in=2600;id=a"))
    time.sleep(3.6)
    assert room.heard == []


def test_visitors(world, app):
    cookies = {}

    def say(*headers):
        got = world.post("/v/x", headers=[("X-Say", json.dumps({"headers": headers}))], cookies=cookies)
        assert got.status == 200, got
        return got.json()
    who = uuid.uuid4().hex
    say(("Stateway-Set", json.dumps({"who": who})), ("Stateway-Alarm", "in=400;id=a"))
    mine = lambda: [d for d in app.deliveries if who in (d.get("stateway-state") or "")]  # noqa: E731
    heard = wait_for(lambda: mine())[0]
    assert heard.get("stateway-key").startswith("visitor:")
    assert heard.get("cookie") is None
    assert world.get("/v/x", cookies=cookies).json()["stateway-key"] == heard.get("stateway-key")


@pytest.mark.parametrize("how", [("Stateway-Renew", "?1"), ("Stateway-Subject", "ada")])
def test_a_renewed_id_keeps_its_alarm(world, app, how):
    cookies, who = {}, uuid.uuid4().hex

    def say(*headers):
        got = world.post("/v/x", headers=[("X-Say", json.dumps({"headers": headers}))], cookies=cookies)
        assert got.status == 200, got
    say(("Stateway-Set", json.dumps({"who": who})), ("Stateway-Alarm", "in=900;id=a"))
    before = dict(cookies)
    app_acts = []

    def act(asked, raw):
        app_acts.append(asked)
        return answer(200, b"", [("Stateway-Patch", '{"rang":true}')])
    say(how, ("Stateway-Patch", '{"n":1}'))
    assert cookies["sid"] != before["sid"]
    key = world.get("/v/x", cookies=dict(cookies)).json()["stateway-key"]
    app.on_alarm[key] = act
    # the id may be told as it was when the alarm was set, or as it is now: the state is what counts
    mine = lambda: [d for d in app.deliveries if who in (d.get("stateway-state") or "")]  # noqa: E731
    heard = wait_for(lambda: mine())[0]
    assert json.loads(heard.get("stateway-state")) == {"who": who, "n": 1}
    time.sleep(0.5)
    assert len(mine()) == 1
    state = json.loads(world.get("/v/x", cookies=dict(cookies)).json()["stateway-state"])
    assert state["who"] == who and state["n"] == 1
    assert state.get("rang", False) == bool(app_acts)


def test_logout_ends_it(world, app):
    cookies, who = {}, uuid.uuid4().hex
    for headers in ([("Stateway-Set", json.dumps({"who": who})), ("Stateway-Alarm", "in=600;id=a")],
                    [("Stateway-Delete", "?1")]):
        world.post("/v/x", headers=[("X-Say", json.dumps({"headers": headers}))], cookies=cookies)
    time.sleep(1.2)
    assert not [d for d in app.deliveries if who in (d.get("stateway-state") or "")]


# ---- failures ----


def attempts(heard):
    return [int(re.search(r"attempt=(\d+)", h.get("stateway-alarm"))[1]) for h in heard]


@pytest.mark.parametrize("failure", [lambda asked, raw: answer(503), lambda asked, raw: raw.close(),
                                     lambda asked, raw: b"nonsense\r\n\r\n"], ids=["503", "closed", "nonsense"])
def test_tried_again(room, app, failure):
    """After 2 s and, if need be, after 4 more."""
    def act(asked, raw):
        if attempts([asked])[0] < 3:
            return failure(asked, raw)
        return answer(200, b"", [("Stateway-Set", '{"n":2}')])
    app.on_alarm[room.key] = act
    room.set({"n": 1}, "in=0;id=a;data=\"kept\"")
    room.wait(3, 12)
    assert attempts(room.heard) == [1, 2, 3]
    assert all('data="kept"' in h.get("stateway-alarm") for h in room.heard)
    first, second, third = (h.at for h in room.heard)
    assert 1.9 < second - first < 4
    assert 3.9 < third - second < 7
    wait_for(lambda: room.state() == {"n": 2})


def test_refused_update_of_a_delivery(room, app):
    """What it wanted cannot be committed: it counts as failed."""
    app.on_alarm[room.key] = lambda asked, raw: answer(
        200, b"", [("Stateway-Set", "{" if attempts([asked]) == [1] else '{"n":2}')])
    room.set({"n": 1}, "in=0;id=a")
    room.wait(2, 6)
    wait_for(lambda: room.state() == {"n": 2})


def test_app_is_down(gateway, tmp_path):
    """It is tried again until the app is back."""
    path = tmp_path / "app.sock"
    app = App(path)
    g = gateway(routes(app))
    room = Room(g, app)
    room.set({"n": 1}, "in=300;id=a")
    app.close()
    path.unlink()
    time.sleep(1.0)
    late = App(path)
    try:
        wait_for(lambda: late.of(room.key), 15)
        assert late.of(room.key)[0].get("stateway-state") == '{"n":1}'
    finally:
        late.close()


def test_gateway_killed_before_its_time(gateway, app):
    g = gateway(routes(app))
    rooms = [Room(g, app) for _ in range(5)]
    for n, one in enumerate(rooms):
        assert one.set({"n": n}, "in=1500;id=a").status == 200
    g.kill_gateway()
    for one in rooms:
        one.wait(1, 10)
    time.sleep(0.3)
    assert [len(one.heard) for one in rooms] == [1] * 5


def test_due_while_nothing_runs(gateway, app, tmp_path):
    settings = {**routes(app), "store": f"lmdb:{tmp_path}/state"}
    g = gateway(settings)
    room = Room(g, app)
    room.set({"n": 1}, "in=800;id=a")
    g.stop()
    g.check()
    time.sleep(1.0)
    assert room.heard == []
    gateway(settings)
    assert room.wait(1, 5).get("stateway-state") == '{"n":1}'


def test_a_route_that_is_gone(gateway, app, tmp_path):
    """Its alarms are nobody else's, least of all another app's; and they come when it is back in time."""
    other = App()

    def settings(*names):
        return {"apps": {"a": {"servers": [app.address]}, "b": {"servers": [other.address]}},
                "store": f"{harness.store_kind()}:{tmp_path}/state",
                "routes": [{"path": f"/{name}/{{room}}", "app": name[0], "state": "session",
                            "session": {"key": "path.room", "alarm": f"/alarms-{name}"}} for name in names]}
    try:
        g = gateway(settings("a", "b"))
        room = Room(g, app, "/a")
        assert room.set({"secret": 1}, "in=700;id=x").status == 200
        g.stop()
        g.check()
        g = gateway(settings("a-other", "b"))
        time.sleep(1.2)
        assert not other.of(room.key) and not room.heard
        assert "of a route that is gone" in g.log()
        g.stop()
        g.check()
        gateway(settings("b", "a"))
        heard = room.wait(1, 10)
        assert (heard.target, heard.get("stateway-state")) == ("/alarms-a", '{"secret":1}')
        assert heard.get("stateway-alarm").startswith("id=x;attempt=")
        assert not other.of(room.key)
    finally:
        other.close()


def test_gateway_killed_while_it_is_delivered(gateway, app):
    """Once more then; its effect on the state happens once."""
    inside = threading.Event()

    def act(asked, raw):
        if not inside.is_set():
            inside.set()
            time.sleep(1.0)
        n = json.loads(asked.get("stateway-state"))["n"] + 1
        return answer(200, b"", [("Stateway-Set", json.dumps({"n": n}))])
    g = gateway(routes(app))
    room = Room(g, app)
    app.on_alarm[room.key] = act
    room.set({"n": 1}, "in=50;id=a")
    assert inside.wait(5)
    g.kill_gateway()
    wait_for(lambda: room.state() == {"n": 2}, 10)
    time.sleep(2.5)
    assert room.state() == {"n": 2}
    assert len(room.heard) == 2


def test_kills_at_any_moment(gateway, app):
    """Each alarm adds one to its state, exactly, however often it came."""
    def act(asked, raw):
        n = json.loads(asked.get("stateway-state"))["n"] + 1
        time.sleep(0.005)
        more = [("Stateway-Alarm", "in=20;id=a")] if n < 40 else []
        return answer(200, str(n), [("Stateway-Set", json.dumps({"n": n})), *more])
    g = gateway(routes(app))
    rooms = [Room(g, app) for _ in range(10)]
    for one in rooms:
        app.on_alarm[one.key] = act
        one.set({"n": 0}, "in=20;id=a")
    for _ in range(3):
        time.sleep(1.1)
        old = g.gateway_pid()
        os.kill(old, signal.SIGKILL)
        wait_for(lambda: g.gateway_pid() not in (None, old))
        g.wait_ready()
    wait_for(lambda: all(one.state() == {"n": 40} for one in rooms), 30)
    time.sleep(0.5)
    assert [one.state() for one in rooms] == [{"n": 40}] * 10
    for one in rooms:  # no step was left out, and what came twice came with the same state
        seen = [json.loads(h.get("stateway-state"))["n"] for h in one.heard]
        assert sorted(set(seen)) == list(range(40))
        assert seen == sorted(seen)


def test_memory_store_has_alarms_too(gateway, app):
    g = gateway({**routes(app), "store": "memory:"})
    room = Room(g, app)
    room.set({"n": 1}, "in=200;id=a")
    assert room.wait().get("stateway-state") == '{"n":1}'


def test_six_tries_then_given_up(world, app):
    """The one that was set when this file began."""
    room = world.doomed
    wait_for(lambda: len(room.heard) >= 6, 75)
    assert attempts(room.heard) == [1, 2, 3, 4, 5, 6]
    pauses = [b.at - a.at for a, b in zip(room.heard, room.heard[1:])]
    for pause, least in zip(pauses, (2, 4, 8, 16, 32)):
        assert least - 0.1 < pause < least * 1.5 + 2, pauses
    assert room.state() == {"n": 1}
    wait_for(lambda: "doomed" in world.log() or room.name in world.log(), 5, "the log says what was given up")
    room.set({"n": 2}, "in=0;id=doomed")  # set anew it begins anew
    room.wait(7)
    assert attempts(room.heard)[6] == 1
