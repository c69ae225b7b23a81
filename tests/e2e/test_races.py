"""No update is lost: exact counts, histories that one order explains while everything dies, logouts that hold.

The smaller sisters of script/races; docs/guarantees.md says what is promised. The app is bench/races/registers.py.

STATEWAY_RACES_SECONDS: how long the history with kills is, for each engine (default: 10).
STATEWAY_RACES_LOGOUTS: how many sessions are ended in the middle of their requests (default: 200).
"""
import asyncio
import dataclasses
import itertools
import json
import os
import random
import re
import signal
import threading
import time

import pytest

import history
from harness import PYTHON, ROOT
from history import Op, Recorder, Wire

APP = ROOT / "bench" / "races" / "registers.py"
CLIENTS, REQUESTS, KEYS = 50, 100, 10
MODES = ["serial", "merge", "cas"]


def route(name, concurrency, key="path.name", **more):
    path = f"/{name}/{{name}}" if key == "path.name" else f"/{name}/*"
    return {"path": path, "app": "registers", "state": "session",
            "replay": "safe" if concurrency == "cas" else "idempotent",
            "session": {"key": key, "concurrency": concurrency, "queue": {"length": 512, "wait": "30s"},
                        **({"cookie": {"name": name}} if key == "cookie" else {}), **more}}


def config(*routes, replicas=2):
    return {"apps": {"registers": {"command": [PYTHON, str(APP)], "replicas": replicas,
                                   "health": {"path": "/", "interval": "500ms", "timeout": "500ms"}}},
            "routes": list(routes), "log": {"level": "info"}}


# ---- counts ----


async def add_everywhere(address, base, op, clients=CLIENTS, requests=REQUESTS, keys=KEYS):
    """Each client adds one to every key equally often. What is refused is asked for again."""
    seen = {"refused": 0}

    async def client(number):
        order = [i % keys for i in range(requests)]
        random.shuffle(order)
        wire = await Wire.open(address)
        for key in order:
            target = f"{base}/{key}?op={op}&member=c{number if op == 'patch' else ''}&token={number}"
            pause = 0.001
            while True:
                status, head, _ = await wire.ask(
                    f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode())
                if status == 200:
                    break
                assert status == 409, head  # refused: nothing was done
                seen["refused"] += 1
                await asyncio.sleep(random.uniform(pause / 2, pause))
                pause = min(pause * 2, 0.05)
        wire.close()

    await asyncio.gather(*(client(i) for i in range(clients)))
    return seen["refused"]


def counted(g, base, keys=KEYS):
    """What the keys count to, each."""
    states = [g.get(f"{base}/{key}?op=read").json()["before"] for key in range(keys)]
    return [state["n"] if "n" in state else sum(state.values()) for state in states]


@pytest.mark.parametrize("mode", MODES)
def test_exact_counts(gateway, engine, mode):
    g = gateway(config(route("k", mode)), engine=engine)
    refused = asyncio.run(add_everywhere(g.address, "/k", "patch" if mode == "merge" else "add"))
    assert counted(g, "/k") == [CLIENTS * REQUESTS // KEYS] * KEYS
    if mode == "serial":
        assert refused == 0, "who waits in line meets no conflict"


def test_ten_thousand_on_one_key(gateway):
    g = gateway(config(route("k", "serial")))
    asyncio.run(add_everywhere(g.address, "/k", "add", clients=100, requests=100, keys=1))
    assert counted(g, "/k", 1) == [10000]


def test_exact_counts_of_one_member(gateway):
    """Under merge the same member is safe for those who say which version they mean."""
    g = gateway(config(route("k", "merge")))
    refused = asyncio.run(add_everywhere(g.address, "/k", "guard", clients=8, requests=25, keys=1))
    assert counted(g, "/k", 1) == [200]
    assert refused > 0, "nothing raced"


# ---- the checker itself ----


def made(*rows):
    """A history of one key. Rows: (start, end, kind, token, before, more); end None: no answer came."""
    ops = []
    for start, end, kind, token, before, *more in rows:
        ops.append(Op("k", kind, start, float("inf") if end is None else end, "unknown" if end is None else "ok",
                      token, before=before, **(more[0] if more else {})))
    return ops


def n(number, *trail):
    return number, trail


RIGHT = {
    "one after the other": made(
        (0, 1, "add", "a", None), (2, 3, "add", "b", n(1, "a")), (4, 5, "read", "", n(2, "a", "b"))),
    "side by side, in the other order": made((0, 9, "add", "a", n(1, "b")), (1, 8, "add", "b", None)),
    "a read beside a write sees it not yet": made((0, 1, "add", "a", None), (2, 9, "add", "b", n(1, "a")),
                                                 (3, 4, "read", "", n(1, "a"))),
    "or already": made(
        (0, 1, "add", "a", None), (2, 9, "add", "b", n(1, "a")), (3, 4, "read", "", n(2, "a", "b"))),
    "no answer, and it happened late": made((0, None, "add", "a", None), (1, 2, "read", "", None),
                                           (3, 4, "read", "", n(1, "a"))),
    "no answer, and it never happened": made((0, None, "add", "a", None), (1, 2, "add", "b", None),
                                            (3, 4, "read", "", n(1, "b"))),
    "two without an answer, one after the other": made((0, None, "add", "a", None), (0, None, "add", "b", None),
                                                      (1, 2, "read", "", n(2, "b", "a"))),
    "nobody has seen the one between": made(
        (0, None, "add", "a", None), (1, None, "put", "b", None, {"value": 7}),
        (2, 3, "read", "", n(7, "a", "b"))),
    "ended and made anew": made(
        (0, 1, "add", "a", None), (2, 3, "end", "", n(1, "a")), (4, 5, "add", "b", None),
        (6, 7, "read", "", n(1, "b"))),
    "a swap that found another": made(
        (0, 1, "add", "a", None), (2, 3, "swap", "b", n(1, "a"), {"expect": "x", "value": 5}),
        (4, 5, "read", "", n(1, "a"))),
    "a swap that found its own": made(
        (0, 1, "add", "a", None), (2, 3, "swap", "b", n(1, "a"), {"expect": "a", "value": 5}),
        (4, 5, "read", "", n(5, "a", "b"))),
    "an end without an answer": made(
        (0, 1, "add", "a", None), (2, None, "end", "", None), (3, 4, "read", "", n(1, "a")),
        (5, 6, "read", "", None)),
}

WRONG = {
    "lost update": made((0, 1, "add", "a", None), (2, 9, "add", "b", n(1, "a")), (2, 9, "add", "c", n(1, "a"))),
    "lost update, seen by a reader": made((0, 1, "add", "a", None), (2, 3, "add", "b", n(1, "a")),
                                         (4, 5, "read", "", n(1, "a"))),
    "stale read": made((0, 1, "add", "a", None), (2, 3, "add", "b", n(1, "a")), (4, 5, "read", "", n(1, "a")),
                       (6, 7, "read", "", n(2, "a", "b"))),
    "two readers disagree": made((0, 1, "add", "a", None), (2, 9, "add", "b", n(1, "a")),
                                 (3, 4, "read", "", n(2, "a", "b")), (5, 6, "read", "", n(1, "a"))),
    "an ended state rises again": made(
        (0, 1, "add", "a", None), (2, 3, "end", "", n(1, "a")), (4, 5, "read", "", None),
        (6, 7, "read", "", n(1, "a"))),
    "a late write revives it": made(
        (0, 1, "add", "a", None), (2, 9, "add", "b", n(1, "a")), (3, 4, "end", "", n(1, "a")),
        (10, 11, "read", "", n(2, "a", "b"))),
    "done twice": made((0, 1, "add", "a", None), (2, 3, "read", "", n(2, "a", "a"))),
    "done twice, without an answer": made((0, None, "add", "a", None), (2, 3, "read", "", n(2, "a", "a"))),
    "acknowledged and gone": made((0, 1, "add", "a", None), (2, 3, "read", "", None)),
    "out of nowhere": made((0, 1, "read", "", n(1, "a"))),
    "before it was sent": made((0, 1, "read", "", n(1, "a")), (2, 3, "add", "a", None)),
    "a swap against another": made(
        (0, 1, "add", "a", None), (2, 3, "swap", "b", n(1, "a"), {"expect": "x", "value": 5}),
        (4, 5, "read", "", n(5, "a", "b"))),
    "a number that nobody wrote": made((0, 1, "add", "a", None), (2, 3, "read", "", n(2, "a"))),
    "without an answer, and undone": made(
        (0, None, "add", "a", None), (1, 2, "read", "", n(1, "a")), (3, 4, "read", "", None)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_checker_accepts(name):
    assert history.explain(RIGHT[name]) is not None


@pytest.mark.parametrize("name", WRONG)
def test_checker_refuses(name):
    assert history.explain(WRONG[name]) is None
    assert "no order explains" in history.check(WRONG[name]).complaint


def test_checker_refuses_a_refusal_that_came_true():
    ops = made((0, 1, "add", "a", None), (2, 3, "read", "", n(1, "a")))
    ops[0].outcome = "fail"
    assert history.explain(ops) is None


@pytest.mark.parametrize("versions, right", [
    (['"0"', '"e-1"', '"e-2"'], True), (['"0"', '"e-4"', '"e-9"'], True), (['"0"', '"e-2"', '"e-1"'], False),
    (['"0"', '"e-1"', '"e-1"'], False), (['"e-1"', '"e-2"', '"e-3"'], False), (['"0"', '"0"', '"e-1"'], False),
    (['"0"', '"e-7"', '"f-1"'], True),
])
def test_checker_looks_at_versions(versions, right):
    ops = made((0, 1, "add", "a", None), (2, 3, "add", "b", n(1, "a")), (4, 5, "read", "", n(2, "a", "b")))
    for op, version in zip(ops, versions):
        op.version = version
    assert (history.check(ops).complaint == "") == right


def brute_force(ops):
    """Every order of every subset that holds all answered operations: no search, no memory."""
    ops = history.split(ops)
    answered = [op for op in ops if op.outcome == "ok"]
    silent = [op for op in ops if op.outcome == "unknown"]
    for count in range(len(silent) + 1):
        for some in itertools.combinations(silent, count):
            for order in itertools.permutations(answered + list(some)):
                if any(b.end < a.start for i, a in enumerate(order) for b in order[i + 1:]):
                    continue
                state = None
                for op in order:
                    if op.outcome == "ok" and op.kind != "end" and op.before != state:
                        break
                    state = history.apply(op, state)
                else:
                    return True
    return False


def any_history(chance):
    """A short history of a register that is right, and then perhaps tampered with."""
    ops, state = [], None
    for i in range(chance.randrange(2, 7)):
        moment = i + chance.random()  # when it really happens
        op = Op("k", chance.choice(["add", "add", "read", "put", "swap", "end"]), moment - chance.uniform(0, 3),
                moment + chance.uniform(0, 3), "ok", f"t{i}", chance.randrange(3), chance.choice(["t0", "t1", "t2"]))
        op.before = state
        fate = chance.random()
        if fate < 0.85:
            state = history.apply(op, state)
        if fate > 0.7:  # nobody was told; half of them did not happen
            op.outcome, op.end, op.before = "unknown", float("inf"), None
        ops.append(op)
    told = [op for op in ops if op.outcome == "ok"]
    if told and chance.random() < 0.8:
        victim, other = chance.choice(told), chance.choice(ops)
        victim.before = chance.choice([other.before, history.apply(other, other.before), None])
        if chance.random() < 0.3:
            victim.start, victim.end = sorted((chance.uniform(0, 7), chance.uniform(0, 7)))
    return ops


def test_checker_agrees_with_brute_force():
    """Thousands of short histories, right and wrong ones."""
    chance = random.Random(20)
    verdicts = []
    for number in range(3000):
        ops = any_history(chance)
        found = history.explain(ops)
        assert (found is not None) == brute_force(ops), (number, ops)
        if found is not None:  # and its order is one
            history.check_order(found, ops)
        verdicts.append(found is not None)
    assert 900 < sum(verdicts) < 2400, "too many of one kind"


# ---- histories while everything dies ----


class Killer:
    """SIGKILL to instances and to the gateway process, at random, until left."""

    def __init__(self, g, instance_s=(0.2, 0.8), gateway_s=(1.1, 2.5)):
        self.g, self.instance_s, self.gateway_s = g, instance_s, gateway_s
        self.instances = self.gateways = 0
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self.kill_instances, daemon=True),
                        threading.Thread(target=self.kill_gateways, daemon=True)]

    def kill_instances(self):
        while not self.ending.wait(random.uniform(*self.instance_s)):
            pids = list(self.g.instances().values())
            if pids:
                try:
                    os.kill(random.choice(pids), signal.SIGKILL)
                    self.instances += 1
                except ProcessLookupError:
                    pass

    def kill_gateways(self):
        while not self.ending.wait(random.uniform(*self.gateway_s)):
            pid = self.g.gateway_pid()
            if pid:
                os.kill(pid, signal.SIGKILL)
                self.gateways += 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for thread in self.threads:
            thread.join()


def record(g, seconds, clients=24, modes=("serial", "cas", "merge"), seed=None, kill=True, name="h"):
    """A history of two keys a mode, while everything dies: (operations, figures)."""
    keys = {f"{name}{mode}{i}": f"/{mode}" for mode in modes for i in range(2)}
    recorder = Recorder(g.address, keys, clients, seed)
    if not kill:
        ops = asyncio.run(recorder.record(seconds))
        return ops, {}
    with Killer(g) as killer:
        recording = threading.Thread(target=lambda: asyncio.run(recorder.record(seconds)))
        recording.start()
        time.sleep(seconds)
        killer.ending.set()
        for thread in killer.threads:
            thread.join()
        recording.join(60)
        assert not recording.is_alive(), "a client hangs"
    g.wait_ready()
    return recorder.ops, {"instance_kills": killer.instances, "gateway_kills": killer.gateways}


def history_config():
    return config(*(route(mode, mode) for mode in ("serial", "cas", "merge", "last")), replicas=3)


def test_linearizable_while_everything_dies(gateway, engine):
    g = gateway(history_config(), engine=engine)
    seconds = float(os.environ.get("STATEWAY_RACES_SECONDS", 10))
    ops, figures = record(g, seconds)
    verdict = history.check(ops)
    print(f"{engine} {verdict.ops} operations, {verdict.unknown} without an answer, refused {verdict.failed}, "
          f"{figures}")
    assert verdict.complaint == ""
    assert {why.split()[0] for why in verdict.failed} <= {"409", "502", "503", "504"}, "refused without a word"
    assert figures["gateway_kills"] >= 2 and figures["instance_kills"] >= 3
    assert verdict.ops - verdict.unknown - sum(verdict.failed.values()) > 50 * seconds, "hardly anything was answered"
    assert verdict.unknown > 0, "no kill met a request"


def test_checker_sees_what_last_loses(gateway):
    """The same clients where lost updates are allowed: the check must see them, or it sees nothing."""
    g = gateway(history_config())
    ops, _ = record(g, 0.5, modes=("last",), kill=False)
    assert any(history.explain([op for op in ops if op.key == key]) is None for key in {op.key for op in ops})


# ---- logout ----

WRITERS = 100
LOGOUTS = ["serial", "merge", "cas", "last"]
SESSION = re.compile(rb"(?i)\r\nset-cookie: ([a-z]+)=([^;\r]*)")


@dataclasses.dataclass
class Logouts:
    """What came of many trials."""
    trials: int = 0
    before: int = 0  # updates that were answered before the logout was
    late: int = 0  # updates that were answered after it
    refused: int = 0  # with 409: the state is gone, or was changed
    cookies: int = 0  # that late answers set
    again: int = 0  # logouts that were refused, and asked for again
    broken: list = dataclasses.field(default_factory=list)


async def ask_once(address, method, target, cookie, wires):
    while wires and wires[-1].transport is None:
        wires.pop()
    wire = wires.pop() if wires else await Wire.open(address)
    body = "" if method == "GET" else "Content-Length: 0\r\n"
    cookie = f"Cookie: {cookie}\r\n" if cookie else ""
    answer = await wire.ask(f"{method} {target} HTTP/1.1\r\nHost: a\r\n{cookie}{body}\r\n".encode())
    if wire.transport is not None:
        wires.append(wire)
    return answer


async def logout_trial(address, mode, writers, number, seen, wires):
    """One session, many slow writers, one logout in the middle. Afterwards no cookie leads to its state."""
    mark, chance = f"mark{number}", random.Random(number)
    _, head, _ = await ask_once(address, "POST", f"/{mode}/?op=mark&token={mark}", "", wires)
    cookies = {b"=".join(pair).decode() for pair in SESSION.findall(head)}
    first = next(iter(cookies))
    ended = None

    async def writer(i):
        await asyncio.sleep(chance.uniform(0, 0.1))
        op = "renew" if number % 2 and i < 2 else chance.choice(["keep", "patch"])
        method = "GET" if i % 10 == 9 else "POST"  # some write where one reads
        sent_after = ended is not None
        think = chance.randrange(1, 9 if mode == "serial" else 60)
        status, head, body = await ask_once(address, method, f"/{mode}/?op={op}&member=m&think={think}", first, wires)
        given = {b"=".join(pair).decode() for pair in SESSION.findall(head) if pair[1]}
        cookies.update(given)
        seen.before, seen.late = seen.before + (ended is None), seen.late + (ended is not None)
        seen.cookies += len(given) if ended is not None else 0
        seen.refused += status == 409
        if status not in (200, 409):
            seen.broken.append(f"{mode} {number}: a writer got {status} {head!r}")
        if sent_after and mark.encode() in body:
            seen.broken.append(f"{mode} {number}: the app was handed the state after the logout")

    async def logout():
        nonlocal ended
        await asyncio.sleep(chance.uniform(0.01, 0.09))
        while True:
            status, head, _ = await ask_once(address, "POST", f"/{mode}/?op=end", first, wires)
            if status != 409:
                break
            seen.again += 1
        ended = time.monotonic()
        if status != 200 or b"max-age=0" not in head.lower():
            seen.broken.append(f"{mode} {number}: the logout got {head!r}")

    await asyncio.gather(logout(), *(writer(i) for i in range(writers)))
    for cookie in cookies:
        for method, op in (("GET", "read"), ("POST", "keep"), ("GET", "read"))[:3 if cookie == first else 1]:
            _, head, body = await ask_once(address, method, f"/{mode}/?op={op}", cookie, wires)
            if mark.encode() in body:
                seen.broken.append(f"{mode} {number}: {cookie} leads to the ended state: {body!r}")
        if cookie == first and json.loads(body)["before"] is not None:
            seen.broken.append(f"{mode} {number}: the old cookie has a state again: {body!r}")
    seen.trials += 1


async def logouts(address, trials, at_once=16, writers=WRITERS, modes=LOGOUTS):
    """{mode: what came of its trials}."""
    seen, numbers, wires = {mode: Logouts() for mode in modes}, iter(range(trials)), []

    async def some():
        for number in numbers:
            mode = modes[number // 2 % len(modes)]
            await logout_trial(address, mode, writers, number, seen[mode], wires)

    await asyncio.gather(*(some() for _ in range(at_once)))
    for wire in wires:
        wire.close()
    return seen


def logout_config():
    made_of = config(*(route(mode, mode, key="cookie") for mode in LOGOUTS))
    return {**made_of, "timeouts": {"idle": "1h"}}  # connections are kept for later trials


def test_logout_wins(gateway):
    g = gateway(logout_config())
    trials = int(os.environ.get("STATEWAY_RACES_LOGOUTS", 200))
    seen = asyncio.run(logouts(g.address, trials))
    for mode, one in seen.items():
        print(mode, dataclasses.replace(one, broken=one.broken[:3]))
    assert sum(one.trials for one in seen.values()) == trials
    assert [line for one in seen.values() for line in one.broken] == []
    for mode, one in seen.items():
        assert one.before > 0 and one.late > 0, f"{mode}: the logout was not in the middle"
