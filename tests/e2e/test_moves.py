"""moved-from: a running route gets another placement, and its visitors keep their states.

Two gateways, one after the other, with one store and one key ring: the first as it was, the second as it is
now. The app (test_session) answers as told and never learns of it.
"""
import base64
import concurrent.futures
import copy
import json
import random
import shutil
import tempfile
import threading
import time

import pytest

from harness import Gateway, Origin
from test_sealed import seal_of
from test_session import Visitor, header, respond

SECTIONS = {
    "session": {"cookie": {"name": "old-or-new"}},
    "sealed": {"cookie": {"name": "sealed"}},
    "token": {"from": "cookie.minted", "issuer": "https://shop.example", "audience": ["shop"], "mint": {"life": "10m"}},
}
NAMES = {"session": "old-or-new", "sealed": "sealed", "token": "minted"}
PAIRS = [(old, new) for old in NAMES for new in NAMES if old != new]
GUARDS = [(old, new, guard) for old, new in PAIRS for guard in ("off", "on") if guard == "off" or "sealed" in (old, new)]


def id_of(cookie):
    """What stays the same through all versions: of a sealed state its header says it, of a token its payload."""
    part = cookie.split(".")[0 if cookie.count(".") == 4 else 1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["jti"]


class Site:
    """One folder, in which a gateway runs as long as one likes, and then another."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="stateway-move-")
        self.origin = Origin(respond)
        self.gateway = None

    def run(self, state, moved_from=None, guard="off", **session):
        self.end()
        route = {"path": "/*", "app": "o", "state": state, "expose": ["verdict"]}
        for kind in {state, moved_from} - {None}:
            route[kind] = copy.deepcopy(SECTIONS[kind])
        if "sealed" in route:
            route["sealed"]["replay-guard"] = guard
        if "session" in route:
            route["session"].update(session)
        if moved_from:
            route["moved-from"] = moved_from
        self.gateway = Gateway({"apps": {"o": {"servers": [self.origin.address]}}, "routes": [route],
                                "store": f"lmdb:{self.folder}/state", "keys": {"file": f"{self.folder}/keys.json"},
                                "trusted": ["127.0.0.1"], "limits": {"head": "64KiB"}})
        return self.gateway

    def end(self):
        if self.gateway is not None:
            gateway, self.gateway = self.gateway, None
            gateway.close()

    def close(self):
        try:
            self.end()
        finally:
            self.origin.close()
            shutil.rmtree(self.folder)

    def visitor(self, cookies=None):
        return Visitor(self.gateway, "", cookies)

    def made(self, state, **more):
        v = self.visitor()
        got = v.set(state, **more)
        assert (got.status, got.verdict) == (200, "updated"), got
        return v.cookies


@pytest.fixture
def site():
    made = Site()
    yield made
    made.close()


def moved(site, old, new, guard="off", count=1, **options):
    """Visitors' cookies from before; the second gateway runs."""
    site.run(old, guard=guard)
    jars = [site.made({"n": i}, send=[("Stateway-Subject", f"user{i}")]) for i in range(count)]
    site.run(new, moved_from=old, guard=guard, **options)
    return jars


@pytest.mark.parametrize("old, new, guard", GUARDS)
def test_keeps_his_state(site, old, new, guard):
    for change in (False, True):
        (jar,) = moved(site, old, new, guard)
        before, v = dict(jar), site.visitor(jar)
        got = v.patch({"m": 1}) if change else v.ask("GET")
        assert got.status == 200
        assert header(got, "stateway-state") == '{"n":0}'
        assert list(v.cookies) == [NAMES[new]], got  # even when the app changed nothing
        want = {"n": 0, "m": 1} if change else {"n": 0}
        assert v.state() == want
        assert v.set({**want, "k": 1}).status == 200 and v.state() == {**want, "k": 1}
        late = site.visitor(before).ask("GET")  # his old cookie is of no use any more, or leads to the new state
        assert header(late, "stateway-state") in (None, '{"n":0,"m":1,"k":1}' if change else '{"n":0,"k":1}'), late
        if new != "session":
            assert header(late, "stateway-state") is None


@pytest.mark.parametrize("old, new", PAIRS)
def test_an_answer_that_fails_moves_nothing(site, old, new):
    (jar,) = moved(site, old, new)
    v = site.visitor(jar)
    assert v.ask(status=500).status == 500
    assert list(v.cookies) == [NAMES[old]]
    assert v.ask(send=[("Stateway-Set", "[]")]).status == 502
    assert v.state() == {"n": 0}


@pytest.mark.parametrize("old, new, guard", GUARDS)
def test_an_answer_that_is_lost(site, old, new, guard):
    """The client never got the new cookie: he comes again with the old one, and nothing is lost."""
    (jar,) = moved(site, old, new, guard)
    for i in range(3):
        v = site.visitor(jar)
        assert v.patch({f"k{i}": i}).status == 200  # and the answer is lost
    v = site.visitor(jar)
    want = {"n": 0}
    if "session" in (old, new):  # else what was in the answers is lost with them, as ever; and nothing else
        want |= {"k0": 0, "k1": 1, "k2": 2}
    assert v.state() == want
    assert v.patch({"m": 1}).status == 200
    assert v.state() == {**want, "m": 1}


@pytest.mark.parametrize("old, new, guard", GUARDS)
def test_two_at_once(site, old, new, guard):
    """Parallel first requests make one state, not two that both survive."""
    jars = moved(site, old, new, guard, count=20)

    def race(i):
        visitors = [site.visitor(jars[i]) for _ in range(4)]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            got = list(pool.map(lambda k: visitors[k].patch({f"k{k}": k}, delay=random.random() * 0.01), range(4)))
        good = [k for k in range(4) if got[k].status == 200]
        assert good, got
        assert {g.status for g in got} <= {200, 409}, got
        if new == "session":
            assert len({visitors[k].cookies[NAMES[new]] for k in good}) == 1
            assert visitors[good[0]].state() == {"n": i, **{f"k{k}": k for k in good}}
        else:
            ids = {id_of(visitors[k].cookies[NAMES[new]]) for k in good if NAMES[new] in visitors[k].cookies}
            assert len(ids) == 1
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        list(pool.map(race, range(20)))


@pytest.mark.parametrize("old, new", PAIRS)
def test_the_new_one_wins(site, old, new):
    (jar,) = moved(site, old, new)
    other = site.made({"who": "other"})
    v = site.visitor({**jar, **other})
    got = v.ask("GET")
    assert header(got, "stateway-state") == '{"who":"other"}'
    assert list(v.cookies) == [NAMES[new]]
    v = site.visitor({**jar, **other})
    assert v.delete().verdict == "revoked" and v.cookies == {}
    assert site.visitor(jar).state() is None  # he is logged out, with whatever he names


@pytest.mark.parametrize("old, new, guard", GUARDS)
def test_logout_while_it_moves(site, old, new, guard):
    jars = moved(site, old, new, guard, count=3)
    v = site.visitor(jars[0])
    assert v.delete().verdict == "revoked" and v.cookies == {}
    assert site.visitor(jars[0]).state() is None
    twin, v = site.visitor(jars[1]), site.visitor(jars[1])
    assert twin.ask("GET").status == 200  # it has the new one
    assert v.delete().verdict == "revoked"  # he logs out by the old one
    assert v.cookies == {}
    assert twin.state() is None and site.visitor(jars[1]).state() is None
    v = site.visitor(jars[2])
    assert v.ask("GET").status == 200 and v.delete().verdict == "revoked"
    assert site.visitor(jars[2]).state() is None


@pytest.mark.parametrize("old, new", PAIRS)
def test_ended_before(site, old, new):
    site.run(old)
    v = site.visitor()
    v.set({"n": 1})
    jar = dict(v.cookies)
    assert v.delete().verdict == "revoked"
    site.run(new, moved_from=old)
    v = site.visitor(jar)
    assert v.state() is None
    assert v.set({"n": 2}).status == 200 and v.state() == {"n": 2}


@pytest.mark.parametrize("old, new", PAIRS)
def test_renewed_at_the_same_time(site, old, new):
    (jar,) = moved(site, old, new)
    v = site.visitor(jar)
    got = v.patch({"m": 1}, send=[("Stateway-Subject", "somebody")])
    assert got.status == 200 and list(v.cookies) == [NAMES[new]]
    assert v.state() == {"n": 0, "m": 1}
    assert v.set({"n": 5}).status == 200 and v.state() == {"n": 5}


def test_absolute_end_goes_along(site):
    site.run("sealed")
    v = site.visitor()
    v.set({"n": 1})
    exp = seal_of(v.cookies["sealed"])["exp"]
    site.run("session", moved_from="sealed", absolute="399d", idle="399d")
    assert v.gateway is not None
    v = site.visitor(v.cookies)
    assert v.state() == {"n": 1}
    site.run("sealed", moved_from="session")  # and back
    v = site.visitor(v.cookies)
    assert v.state() == {"n": 1}
    assert abs(seal_of(v.cookies["sealed"])["exp"] - exp) <= 1
    assert v.state() == {"n": 1} and list(v.cookies) == ["sealed"]


def test_too_large_to_be_sealed_stays(site):
    site.run("session")
    jar = site.made({"m": "x" * 6000})
    site.run("sealed", moved_from="session")
    v = site.visitor(jar)
    got = v.ask("GET")
    assert got.status == 200 and list(v.cookies) == ["old-or-new"]
    assert v.patch({"m": "small"}).status == 200
    assert list(v.cookies) == ["sealed"] and v.state() == {"m": "small"}


@pytest.mark.parametrize("old, new, guard", GUARDS)
def test_killed_while_it_moves(site, old, new, guard):
    """A crash at any moment: each visitor has what he was last told."""
    jars = moved(site, old, new, guard, count=60)
    told = [{"n": i} for i in range(60)]
    stop = threading.Event()

    def work(i):
        v = site.visitor(jars[i])
        for k in range(50):
            if stop.is_set():
                break
            try:
                got = v.patch({"k": k})
            except (OSError, EOFError):
                time.sleep(0.02)
                if guard == "on":
                    break  # its number may be durable, and its cookie lost
                continue
            if got.status == 200:
                told[i] = {"n": i, "k": k}
        return v

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        jobs = [pool.submit(work, i) for i in range(60)]
        for _ in range(3):
            time.sleep(0.1)
            site.gateway.kill_gateway()
        stop.set()
        visitors = [job.result() for job in jobs]
    for i, v in enumerate(visitors):
        got = v.ask("GET")
        assert got.status == 200, got
        state = header(got, "stateway-state")
        assert state is not None, (i, told[i], v.cookies)
        n = json.loads(state)
        assert n["n"] == i
        assert n.get("k", -1) >= told[i].get("k", -1), (n, told[i])


def test_a_forged_old_cookie(site):
    jars = moved(site, "sealed", "session", count=2)
    a, b = jars[0]["sealed"].split("."), jars[1]["sealed"].split(".")
    for parts in range(1, 5):
        v = site.visitor({"sealed": ".".join(a[:parts] + b[parts:])})
        assert v.state() is None
    whole = jars[0]["sealed"]
    for at in range(0, len(whole), 7):
        v = site.visitor({"sealed": whole[:at] + ("A" if whole[at] != "A" else "B") + whole[at + 1:]})
        assert v.state() is None
    assert site.visitor(jars[0]).state() == {"n": 0}
