"""state: sealed over the wire: the client carries the state, and tries everything to put another one there.

The app is the one of test_session: it answers as told, and an app of `state: session` runs unchanged.
"""
import base64
import concurrent.futures
import json
import random
import re
import threading
import time

import pytest

from harness import Gateway, Origin, free_port
from test_session import Visitor, header, respond

TOO_LARGE = {"much": "x" * 3500}


def route(name, cookie=None, session=None, path=None, app="o", **sealed):
    made = {"path": path or f"/{name}/*", "app": app, "state": "sealed", "expose": ["verdict"],
            "sealed": {"cookie": {"name": cookie or name}, **sealed}}
    if session:
        made["session"] = session
    return made


ROUTES = [
    route("s"), route("other"), route("guard", **{"replay-guard": "on"}),
    route("idle", idle="3s"), route("end", absolute="3s"), route("touch", idle="10s"),
    route("touchguard", idle="10s", **{"replay-guard": "on"}),
    route("spill", oversize="spill", session={"cookie": {"name": "spilled"}, "max-size": "16KiB"}),
    route("spillguard", oversize="spill", session={"cookie": {"name": "spilledg"}}, **{"replay-guard": "on"}),
    {**route("again", **{"replay-guard": "on"}), "idempotency": {"mode": "optional"}},
    route("p", app="p", cookie="state-p"),
    {**route("tls"), "sealed": {"cookie": {"name": "tls", "secure": "yes", "same-site": "strict"}}},
]


def config(origin, **more):
    def servers():
        return {"servers": [origin.address], "limits": {"connections": 400}}
    return {"apps": {"o": servers(), "p": servers()}, "routes": ROUTES, "trusted": ["127.0.0.1"],
            "limits": {"head": "64KiB"}, **more}


@pytest.fixture(scope="module")
def world():
    origin = Origin(respond)
    with Gateway(config(origin)) as gateway:
        gateway.origin = origin
        yield gateway
    origin.close()


def visitor(world, name, state=None, **more):
    made = Visitor(world, f"/{name}", **more)
    if state is not None:
        got = made.set(state)
        assert (got.status, got.verdict) == (200, "updated"), got
    return made


def seal_of(cookie):
    """The seal's header, which the client can read as well."""
    head = cookie.split(".", 1)[0]
    return json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))


def absent(got, name):
    """One answer for whatever is no state: none for the app, and the cookie goes."""
    assert (got.status, got.verdict) == (200, "expired"), got
    assert header(got, "stateway-state") is None
    assert header(got, "stateway-version") == '"0"' or header(got, "stateway-version") == "0", got.told
    assert [line.split(";")[0] for line in got.all("set-cookie")] == [f"{name}="], got
    assert "max-age=0" in got.get("set-cookie").lower()


# ---- the same app ----


def test_first_write_and_on(world):
    v = visitor(world, "s")
    got = v.ask("GET")
    assert (got.verdict, got.all("set-cookie")) == ("fresh", [])
    got = v.set({"n": 1, "text": "€"}.copy())
    assert re.fullmatch(r"s=[A-Za-z0-9_.-]+; Path=/; HttpOnly; SameSite=Lax; Max-Age=\d+", got.get("set-cookie")), got
    assert "no-store" in got.get("cache-control") or "private" in got.get("cache-control")
    first = v.cookies["s"]
    assert "n" not in seal_of(first) and seal_of(first)["enc"] == "A256GCM"
    got = v.patch({"m": 2})
    assert got.verdict == "updated" and header(got, "stateway-verdict") == "kept"
    assert v.state() == {"n": 1, "text": "€", "m": 2}
    assert seal_of(v.cookies["s"])["jti"] == seal_of(first)["jti"]
    assert seal_of(v.cookies["s"])["exp"] == seal_of(first)["exp"]
    got = v.ask("GET")
    assert got.all("set-cookie") == []  # nothing changed: nothing is sent
    assert "cookie" not in got.told or got.told["cookie"] is None  # and the app does not see it
    assert len(header(got, "stateway-visitor")) == 16
    assert header(got, "stateway-key") == "visitor:" + header(got, "stateway-visitor")
    assert header(got, "stateway-state-info").startswith("inline;type=json;size=")


def test_an_answer_that_commits_nothing(world):
    v = visitor(world, "s", {"n": 1})
    got = v.ask(send=[("Stateway-Set", '{"n":2}')], status=500)
    assert (got.status, got.all("set-cookie")) == (500, [])
    assert v.state() == {"n": 1}
    assert v.ask(send=[("Stateway-Set", '{"n":2}'), ("Stateway-Commit", "always")], status=500).all("set-cookie")
    assert v.state() == {"n": 2}
    for bad in ("[]", "{", '{"a":1,"a":2}'):
        got = v.set(bad)
        assert (got.status, got.all("set-cookie")) == (502, []), got


def test_expect_is_of_the_content_too(world):
    v = visitor(world, "s", {"n": 0})
    left, right = v.twin(), v.twin()
    left.set({"n": "left"})
    right.set({"n": "right"})
    of_left = header(left.ask("GET"), "stateway-version")
    assert of_left != header(right.ask("GET"), "stateway-version")  # one number, two states
    assert left.set({"n": 1}, send=[("Stateway-Expect", of_left)]).status == 200
    got = right.set({"n": 1}, send=[("Stateway-Expect", of_left)])
    assert (got.status, got.get("stateway-error")) == (409, "conflict")


def test_alarms_are_refused(world):
    v = visitor(world, "s", {"n": 1})
    got = v.set({"n": 2}, send=[("Stateway-Alarm", "in=1000")])
    assert (got.status, got.get("stateway-error")) == (502, "update-alarm")
    assert v.state() == {"n": 1}


def test_the_last_cookie_wins(world):
    v = visitor(world, "s", {"n": 0})
    left, right = v.twin(), v.twin()
    assert left.patch({"left": 1}).status == right.patch({"right": 1}).status == 200
    assert left.state() == {"n": 0, "left": 1} and right.state() == {"n": 0, "right": 1}


def test_secure_cookies_are_hardened(world):
    v = visitor(world, "tls")
    got = v.set({"n": 1})
    assert re.fullmatch(r"__Host-tls=[^;]+; Path=/; HttpOnly; SameSite=Strict; Secure; Max-Age=\d+",
                        got.get("set-cookie")) or "__Host-tls=" in got.get("set-cookie"), got
    assert "Secure" in got.get("set-cookie") and "Domain" not in got.get("set-cookie")
    assert v.state() == {"n": 1}


def test_an_envelope(world):
    v = visitor(world, "s")
    got = v.ask(send=[("Content-Type", "application/stateway-commit+json")])
    assert got.status == 502  # its body is no envelope
    assert not got.all("set-cookie")


# ---- what does not open ----


def test_every_byte_of_the_cookie(world):
    v = visitor(world, "s", {"n": 1})
    whole = v.cookies["s"]
    for at in range(len(whole)):
        for other in {whole[at] == "A" and "B" or "A", chr(ord(whole[at]) ^ 1)} - set(';," \\\t'):
            bad = whole[:at] + other + whole[at + 1:]
            if ord(other) <= 0x20 or ord(other) >= 0x7f:
                continue
            absent(visitor(world, "s", cookies={"s": bad}).ask("GET"), "s")
    assert v.state() == {"n": 1}


@pytest.mark.parametrize("bad", ["", "x", ".", "....", "=" * 20, "A" * 4090, "A" * 6000, "..." + "A" * 100])
def test_nonsense(world, bad):
    absent(visitor(world, "s", cookies={"s": bad}).ask("GET"), "s")


def test_cut_at_every_length(world):
    whole = visitor(world, "s", {"n": 1}).cookies["s"]
    for length in range(1, len(whole)):
        absent(visitor(world, "s", cookies={"s": whole[:length]}).ask("GET"), "s")
    absent(visitor(world, "s", cookies={"s": whole + "A"}).ask("GET"), "s")


def test_cut_and_paste(world):
    v, other = visitor(world, "s", {"who": "v"}), visitor(world, "s", {"who": "other"})
    absent(visitor(world, "other", cookies={"other": v.cookies["s"]}).ask("GET"), "other")  # another cookie
    absent(visitor(world, "p", cookies={"state-p": v.cookies["s"]}).ask("GET"), "state-p")  # another app
    for parts in range(1, 5):
        mine, its = v.cookies["s"].split("."), other.cookies["s"].split(".")
        absent(visitor(world, "s", cookies={"s": ".".join(mine[:parts] + its[parts:])}).ask("GET"), "s")
    fresh = visitor(world, "s", cookies={"s": "x"})
    got = fresh.set({"n": 1})  # and a new state takes its place at once
    assert got.verdict == "updated" and len(got.all("set-cookie")) == 1 and fresh.state() == {"n": 1}


def test_another_gateways_keys():
    origin = Origin(respond)
    try:
        with Gateway(config(origin)) as one:
            cookie = visitor(one, "s", {"n": 1}).cookies["s"]
        with Gateway(config(origin)) as two:
            absent(visitor(two, "s", cookies={"s": cookie}).ask("GET"), "s")
    finally:
        origin.close()


# ---- time ----


def test_idle(world):
    v = visitor(world, "idle", {"n": 1})
    time.sleep(1.2)
    got = v.ask("GET")
    assert got.verdict == "kept" and got.all("set-cookie")  # past a tenth of it: it is used
    time.sleep(1.2)
    assert v.state() == {"n": 1}
    old = dict(v.cookies)
    time.sleep(4)
    absent(visitor(world, "idle", cookies=old).ask("GET"), "idle")


def test_absolute(world):
    v = visitor(world, "end", {"n": 1})
    exp = seal_of(v.cookies["end"])["exp"]
    assert v.set({"n": 2}).status == 200 and seal_of(v.cookies["end"])["exp"] == exp
    old = dict(v.cookies)
    time.sleep(max(exp - time.time(), 0) + 0.1)
    absent(visitor(world, "end", cookies=old).ask("GET"), "end")


def test_touch_past_a_tenth(world):
    v = visitor(world, "touch", {"n": 1})
    assert v.ask("GET").all("set-cookie") == []
    time.sleep(2.1)
    version = header(v.ask("GET"), "stateway-version")
    assert v.ask("GET").all("set-cookie") == []
    assert header(v.ask("GET"), "stateway-version") == version


def test_ttl(world):
    v = visitor(world, "s")
    assert v.set({"n": 1}, send=[("Stateway-TTL", "2")]).status == 200
    old = dict(v.cookies)
    assert v.state() == {"n": 1}
    time.sleep(3)
    absent(visitor(world, "s", cookies=old).ask("GET"), "s")


# ---- size ----


def largest(world, name):
    """(state that just fits, visitor that has it); one character more does not."""
    low, high = 1000, 4000
    while high - low > 1:
        middle = (low + high) // 2
        got = visitor(world, name).set({"m": "x" * middle})
        low, high = (middle, high) if got.status == 200 else (low, middle)
    return low


def test_oversize_by_one(world):
    n = largest(world, "s")
    v = visitor(world, "s", {"m": "x" * n})
    assert 4093 <= len("s") + len(v.cookies["s"]) <= 4096
    assert v.state() == {"m": "x" * n}
    got = v.set({"m": "x" * (n + 1)})
    assert (got.status, got.get("stateway-error"), got.all("set-cookie")) == (502, "sealed-large", [])
    assert v.state() == {"m": "x" * n}  # the old one stands
    got = v.patch({"y": 1})
    assert (got.status, got.get("stateway-error")) == (502, "sealed-large")
    world.wait_log("bytes of its cookie, at most 4096")
    assert v.patch({"m": None, "y": 1}).status == 200 and v.state() == {"y": 1}


def test_the_whole_cookie_field(world):
    v = visitor(world, "s", {"n": 1})
    v.cookies["foreign"] = "f" * (8192 - 1500)
    assert v.set({"m": "x" * 500}).status == 200
    got = v.set({"m": "x" * 1500})
    assert (got.status, got.get("stateway-error")) == (502, "sealed-large")
    assert v.state() == {"m": "x" * 500}
    world.wait_log("of the client's Cookie field, at most 8192")


def test_spill(world):
    v = visitor(world, "spill", {"n": 1}, cookies={})
    v.set({"n": 1}, send=[("Stateway-Subject", "alice")])
    sealed = dict(v.cookies)
    got = v.patch(TOO_LARGE)
    assert (got.status, got.verdict) == (200, "updated"), got
    assert sorted(line.split("=")[0] for line in got.all("set-cookie")) == ["spill", "spilled"]
    assert list(v.cookies) == ["spilled"]
    assert v.state() == {"n": 1, **TOO_LARGE}
    assert v.patch({"much": None}).status == 200  # it does not come back by itself
    assert list(v.cookies) == ["spilled"] and v.state() == {"n": 1}
    back = visitor(world, "spill", cookies=sealed).ask("GET")  # what was sealed is over
    assert (back.verdict, header(back, "stateway-state")) == ("revoked", None)
    both = visitor(world, "spill", cookies={**sealed, **v.cookies})
    got = both.ask("GET")
    assert header(got, "stateway-state") == '{"n":1}', got.told  # a late answer set it again
    assert v.delete().verdict == "revoked" and v.cookies == {}
    first = visitor(world, "spill")
    assert first.set(TOO_LARGE).status == 200
    assert list(first.cookies) == ["spilled"] and first.state() == TOO_LARGE


def test_spill_of_more_than_the_session_takes(world):
    v = visitor(world, "spill", {"n": 1})
    got = v.set({"m": "x" * 20000})
    assert (got.status, got.all("set-cookie")) == (502, []), got
    assert v.state() == {"n": 1}


# ---- the end ----


def test_logout(world):
    for name in ("s", "guard"):
        v = visitor(world, name, {"n": 1})
        v.set({"n": 2})
        old = dict(v.cookies)
        got = v.delete()
        assert got.verdict == "revoked" and v.cookies == {}
        for _ in range(2):
            back = visitor(world, name, cookies=old)
            got = back.ask("GET")
            assert (got.verdict, header(got, "stateway-state")) == ("revoked", None), got
            assert back.cookies == {}
        again = visitor(world, name, cookies=old)
        assert again.set({"n": 3}).status == 200  # another state, of another id
        assert seal_of(again.cookies[name])["jti"] != seal_of(old[name])["jti"]
        assert visitor(world, name, cookies=old).delete().status == 200


def test_a_slower_answer_does_not_undo_a_logout(world):
    for name in ("s", "guard"):
        v = visitor(world, name, {"n": 1})
        slow = v.twin()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            late = pool.submit(slow.set, {"n": 2}, delay=0.4)
            time.sleep(0.1)
            assert v.delete().verdict == "revoked"
            got = late.result()
        assert (got.status, got.get("stateway-error"), got.all("set-cookie")) == (409, "state-gone", []), got


def test_logout_raced_by_slow_requests(world):
    """Whatever arrives last at the browser: the cookie that it has is no state any more."""
    def race(i):
        name = ("s", "guard")[i % 2]
        v = visitor(world, name, {"n": 1})
        twins, ended = [v.twin() for _ in range(3)], seal_of(v.cookies[name])["jti"]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(t.set, {"n": 2}, delay=random.random() * 0.01) for t in twins]
            out = pool.submit(v.delete, delay=random.random() * 0.01)
            out, answers = out.result(), [job.result() for job in jobs]
        if name == "guard" and out.status == 409:  # it came after another one's update
            fresh = next(t for t, a in zip(twins, answers) if a.status == 200)
            assert Visitor(world, v.base, fresh.cookies).delete().status == 200
        else:
            assert out.status == 200, out
        for t in twins:
            if not t.cookies or seal_of(t.cookies[name])["jti"] != ended:
                continue  # it came after the logout: another state, of nobody yet
            got = Visitor(world, v.base, t.cookies).ask("GET")
            if got.status != 409:
                assert header(got, "stateway-state") is None, got
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(race, range(333)))  # three racers each


def test_renewed(world):
    for name in ("s", "guard"):
        v = visitor(world, name, {"n": 1})
        old = v.twin()
        got = v.ask(send=[("Stateway-Subject", "alice")])
        assert got.verdict == "updated"
        assert seal_of(v.cookies[name])["jti"] != seal_of(old.cookies[name])["jti"]
        assert v.state() == {"n": 1}
        assert old.twin().state() == {"n": 1}  # the page's other requests
        got = old.twin().set({"n": 2})
        assert (got.status, got.get("stateway-error")) == (409, "sealed-old")
        with_old = old.twin()
        assert v.delete().verdict == "revoked"
        got = with_old.ask("GET")
        assert (got.verdict, header(got, "stateway-state")) == ("revoked", None)


def test_a_subject_is_cut_off(world):
    v, other = visitor(world, "s", {"n": 1}), visitor(world, "s", {"n": 2})
    v.ask(send=[("Stateway-Subject", "carol/1")])
    other.ask(send=[("Stateway-Subject", "dora")])
    got = world.admin("DELETE", "/v1/subjects/carol%2F1")
    assert got.status < 300, got
    assert (v.ask("GET").verdict, other.state()) == ("revoked", {"n": 2})


# ---- rollback ----


def test_rollback_without_guard(world):
    v = visitor(world, "s", {"coins": 5})
    old = v.twin()
    v.set({"coins": 0})
    assert old.state() == {"coins": 5}  # nothing else can know: that is what the guard is for


def test_rollback_with_guard(world):
    v = visitor(world, "guard", {"coins": 5})
    old = v.twin()
    v.set({"coins": 0})
    assert old.twin().state() == {"coins": 5}  # reads of the page that was being loaded
    got = old.twin().set({"coins": 6})
    assert (got.status, got.get("stateway-error"), got.all("set-cookie")) == (409, "sealed-old", []), got
    got = old.twin().ask("GET", send=[("Stateway-Set", '{"coins":6}')])
    assert (got.status, got.get("stateway-error")) == (409, "sealed-old")
    time.sleep(11)
    got = old.twin().ask("GET")
    assert (got.status, got.get("stateway-error")) == (409, "sealed-old")
    assert "max-age=0" in got.get("set-cookie").lower()  # so that nobody is locked out for good
    assert v.state() == {"coins": 0}


def test_parallel_updates_with_guard(world):
    """Each 200 is in the final state, each 409 is not, and nobody lost anything."""
    v = visitor(world, "guard", {})
    jar, lock, done = dict(v.cookies), threading.Lock(), []

    def update(i):
        for _ in range(2000):
            with lock:
                mine = Visitor(world, v.base, jar)
            got = mine.patch({f"k{i}": i})
            if got.status == 200:
                with lock:
                    jar.update(mine.cookies)
                    done.append(i)
                return
            assert (got.status, got.get("stateway-error")) == (409, "sealed-old"), got
        raise AssertionError("never")

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        list(pool.map(update, range(50)))
    assert sorted(done) == list(range(50))
    assert Visitor(world, v.base, jar).state() == {f"k{i}": i for i in range(50)}


def test_one_of_many_at_once(world):
    v = visitor(world, "guard", {"n": 0})
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        twins = [v.twin() for _ in range(50)]
        got = list(pool.map(lambda i: twins[i].set({"n": i}, delay=0.05), range(50)))
    assert [g.status for g in got].count(200) == 1, [g.status for g in got]
    assert {g.status for g in got} == {200, 409}


def test_touch_is_a_version_with_guard(world):
    v = visitor(world, "touchguard", {"n": 1})
    old = v.twin()
    time.sleep(1.3)
    assert v.ask("GET").all("set-cookie")
    assert old.set({"n": 2}).status == 409
    assert v.set({"n": 3}).status == 200 and v.state() == {"n": 3}


def test_idempotency_in_the_same_commit(world):
    v = visitor(world, "again", {"n": 1})
    key = [("Idempotency-Key", '"k-1"')]
    first, second = v.twin(), v.twin()
    got = first.set({"n": 2}, headers=key)
    assert got.status == 200, got
    got = second.set({"n": 2}, headers=key)  # the same again, by who never saw the answer
    assert got.status in (200, 409), got
    if got.status == 200:
        assert got.all("set-cookie") == []
    assert first.state() == {"n": 2}


# ---- crashes ----


@pytest.mark.parametrize("name", ["s", "guard"])
def test_killed_in_between(name):
    """What was answered with 200 is what a visitor has; a logout that was answered stays one."""
    origin = Origin(respond)
    try:
        with Gateway(config(origin)) as world:
            v, ended = visitor(world, name, {"n": 0}), []
            for i in range(6):
                gone = visitor(world, name, {"i": i})
                old = dict(gone.cookies)
                assert gone.delete().verdict == "revoked"
                ended.append(old)
                stop, acked = threading.Event(), []

                def write():
                    n = v.state()["n"]
                    while not stop.is_set():
                        try:
                            got = v.set({"n": n + 1})
                        except (OSError, EOFError):
                            return
                        if got.status != 200:
                            return
                        n += 1
                        acked.append(n)

                thread = threading.Thread(target=write)
                thread.start()
                time.sleep(0.2)
                world.kill_gateway()
                stop.set()
                thread.join()
                got = v.ask("GET")
                if name == "guard" and got.status == 409:
                    pytest.fail("a reader was refused at once")
                assert json.loads(header(got, "stateway-state"))["n"] == acked[-1]
                if v.set({"n": acked[-1]}).status == 409:  # its answer was lost, and it was durable: honest
                    assert name == "guard"
                    v = visitor(world, name, {"n": acked[-1]})
            for old in ended:
                assert visitor(world, name, cookies=old).ask("GET").verdict == "revoked"
    finally:
        origin.close()


def test_keys_retire(tmp_path):
    """A state sealed with another key than the active one is sealed anew at its next use."""
    origin = Origin(respond)
    keys = tmp_path / "keys.json"
    try:
        with Gateway(config(origin, keys={"file": str(keys)})) as world:
            v, idle = visitor(world, "s", {"n": 1}), visitor(world, "s", {"n": 2})
            assert v.ask("GET").all("set-cookie") == []
        ring = json.loads(keys.read_text())
        first = ring["keys"][0]
        second = {**first, "id": first["id"] + 1,
                  "secret": base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")}
        if len(first["secret"]) == 64:
            second["secret"] = bytes(range(32)).hex()
        for key, state in ((first, "retired"), (second, "active")):
            key["state"] = state
        keys.write_text(json.dumps({**ring, "keys": [first, second]}))
        with Gateway(config(origin, keys={"file": str(keys)})) as world:
            v.gateway = idle.gateway = world
            assert v.ask("GET").all("set-cookie")
            assert seal_of(v.cookies["s"])["kid"] == str(second["id"])
            assert v.ask("GET").all("set-cookie") == []
        keys.write_text(json.dumps({**ring, "keys": [second]}))
        with Gateway(config(origin, keys={"file": str(keys)})) as world:
            v.gateway = idle.gateway = world
            assert v.state() == {"n": 1}
            absent(idle.ask("GET"), "s")
    finally:
        origin.close()
