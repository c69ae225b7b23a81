"""Histories: what concurrent clients asked for and were told, and whether one order explains all of it.

A History holds an Op for each request: when it was sent, when its answer had come, what the answer told. check()
looks for a linearization: one order of all operations of a key in which every answer is right, and in which
no operation stands before one that was answered before it was sent. It is the search of Wing & Gong with
Lowe's memory of configurations that were tried already.

    ok       answered with success: it happened, between sending and answer
    fail     refused by an answer: it must not have happened
    unknown  no answer: it may have happened at any time after it was sent, or never

The registers are those of bench/races/registers.py. Each write carries a token that nobody else writes, and
each answer tells the whole state that the app was handed, so that wrong orders are seen at once.
"""
import asyncio
import collections
import dataclasses
import json
import os
import random
import time
from typing import Optional

TRAIL = 8  # tokens that a state remembers; as in registers.py
SPENT_MAX = 2_000_000  # operations that a search tries at places


@dataclasses.dataclass
class Op:
    """One request. state: a tuple (n, trail), or None when there is none."""
    key: str
    kind: str  # read add put swap end
    start: float
    end: float = float("inf")
    outcome: str = "unknown"
    token: str = ""
    value: int = 0
    expect: str = ""
    before: Optional[tuple] = None  # what the answer told; of outcome ok
    version: str = ""
    who: int = 0
    detail: str = ""
    follows: Optional[tuple] = dataclasses.field(default=None, repr=False)  # (token before it,): others told so


def state_of(told):
    """The state of an answer's JSON, as tuple."""
    return None if told is None else (told["n"], tuple(told["trail"]))


def apply(op, state):
    """The state after this operation on that state."""
    trail = state[1] if state else ()
    written = (trail + (op.token,))[-TRAIL:]
    if op.kind == "add":
        return ((state[0] if state else 0) + 1, written)
    if op.kind == "put" or op.kind == "swap" and trail[-1:] == (op.expect,):
        return (op.value, written)
    if op.kind == "end":
        return None
    return state


def step(op, state):
    """(may it stand here, the state after it)."""
    if op.outcome == "ok":
        return op.kind == "end" or op.before == state, apply(op, state)
    if op.follows is not None and (state[1][-1:] if state else ()) != op.follows:
        return False, None
    new = apply(op, state)
    return new != state, new  # one that changes nothing need not have happened


class Undecided(Exception):
    """The search was given up: too many operations without an answer."""


# In which turn an operation is tried at a place of the order: those that leave the state as it is come first, and then
# there is nothing to choose, since moving one of them forward never spoils an order.
STAYS, CHANGES, ENDS, SILENT, NONE_LEFT = range(5)


def turn_of(op, state, new):
    if op.outcome == "unknown":
        return SILENT
    if op.kind == "end":
        return ENDS
    return STAYS if new == state else CHANGES


def witnesses(op):
    """What only this operation's answer makes necessary: (its state,) and the tokens that its state has had."""
    if op.outcome != "ok" or op.kind == "end" or op.before is None:
        return ()
    return (op.before, *op.before[1])


def search(ops):
    """An order of operations of one key that explains every answer (a list), or None when there is none.

    A state that is left never comes back, since no token is written twice. So it may not be left while an answer that
    told it, or for an end one that told of its last write, has no place yet.
    """
    events = sorted([(op.start, 0, i) for i, op in enumerate(ops)] +
                    [(op.end, 1, i) for i, op in enumerate(ops) if op.outcome == "ok"])
    size = len(events)
    # A list of events to take from and put back: before[] and behind[] are its links, `size` is its head.
    behind, before = list(range(1, size + 1)) + [0], [size] + list(range(size))
    if size:
        before[0], before[size] = size, size - 1
    answer_of = {i: at for at, (_, returns, i) in enumerate(events) if returns}
    left = len(answer_of)
    state, done, taken, tried, spent = None, 0, [], set(), 0
    wanted = collections.Counter(sight for op in ops for sight in witnesses(op))

    def may_leave(op, new):
        sight = state if new is not None else state[1][-1]
        return wanted[sight] == witnesses(op).count(sight)

    def lift(at):
        behind[before[at]], before[behind[at]] = behind[at], before[at]

    def unlift(at):
        behind[before[at]], before[behind[at]] = at, at

    at, turn = behind[size], STAYS
    while left:
        if turn == NONE_LEFT:
            if not taken:
                return None
            at, state, turn = taken.pop()
            i = events[at][2]
            done &= ~(1 << i)
            wanted.update(witnesses(ops[i]))
            if i in answer_of:
                unlift(answer_of[i])
                left += 1
            unlift(at)
            at = behind[at]
        elif at == size or events[at][1]:  # an answer: whatever comes behind it cannot stand before its operation
            at, turn = behind[size], turn + 1
        else:
            i = events[at][2]
            may, new = step(ops[i], state)
            may = may and (state is None or new == state or may_leave(ops[i], new))
            spent += 1
            if spent > SPENT_MAX:
                raise Undecided(f"{len(ops)} operations")
            if not may or turn_of(ops[i], state, new) != turn:
                at = behind[at]
                continue
            if turn == STAYS:
                turn = NONE_LEFT
            mark = (done | 1 << i, new)
            if mark in tried:
                at = behind[at]
                continue
            tried.add(mark)
            taken.append((at, state, turn))
            state, done, turn = new, done | 1 << i, STAYS
            wanted.subtract(witnesses(ops[i]))
            lift(at)
            if i in answer_of:
                lift(answer_of[i])
                left -= 1
            at = behind[size]
    return [ops[events[at][2]] for at, _, _ in taken]


def told_follows(ops):
    """What answers tell about operations that had none: {token: (the token before it,) or ()}."""
    told = {}
    for op in ops:
        trail = op.before[1] if op.outcome == "ok" and op.before else ()
        for i, token in enumerate(trail):
            if i > 0 or len(trail) < TRAIL:
                told[token] = trail[i - 1:i] if i else ()
            else:
                told.setdefault(token, None)
    return told


def split(ops):
    """An end reads a state for the app, and then ends whatever is there by then: it wins over all others."""
    reads = [dataclasses.replace(op, kind="read") for op in ops if op.kind == "end" and op.outcome == "ok"]
    return list(ops) + reads


def explain(ops, thorough=True):
    """An order of one key's operations, or None. Refused operations must not be in it.

    thorough: when none is found without the operations that nobody has seen, it is looked for with them.
    """
    ops = split(ops)
    told = told_follows(ops)
    happened = [op for op in ops if op.outcome != "fail"]
    for op in happened:
        op.follows = told.get(op.token) if op.outcome == "unknown" and op.kind != "end" else None
    # First without those that nobody has seen: nearly always they did not happen, or do not matter.
    seen = [op for op in happened if op.outcome == "ok" or op.kind == "end" or op.token in told]
    order = search(seen)
    if order is None and thorough and len(seen) < len(happened):
        order = search(happened)
    return order


def version_of(text):
    """("3f2a", 17) of "3f2a-17" in quotes; None for "0": no state."""
    epoch, _, counter = text.strip('"').partition("-")
    return (epoch, int(counter)) if counter else None


def check_order(order, ops):
    """The search is not believed: its order must hold every answered operation, right in itself and in time."""
    state, latest = None, float("-inf")
    for op in order:
        latest = max(latest, op.start)
        assert op.end >= latest, f"{op} stands behind one that was sent after its answer"
        may, state = step(op, state)
        assert may, f"{op} cannot stand there"
    asked = {op.token for op in ops if op.outcome == "ok"}
    assert asked <= {op.token for op in order}, "an answered operation is missing"
    assert not {op.token for op in order} & {op.token for op in ops if op.outcome == "fail"}, "a refused one is in it"


def check_versions(order):
    """A version is the name of one state, and counts upwards while the state lives; else a complaint."""
    names, last = {}, None
    for op in order:
        if op.outcome != "ok" or op.kind == "end":
            continue
        version = version_of(op.version)
        if (version is None) != (op.before is None):
            return f"{op}: version and state disagree"
        if version is None:
            continue
        if names.setdefault(version, op.before) != op.before:
            return f"{op}: that version was {names[version]} before"
        if last and last[0] == version[0] and version[1] < last[1]:
            return f"{op}: the version went back from {last}"
        last = version
    if len(set(names.values())) < len(names):
        return "two versions of one state"
    return None


@dataclasses.dataclass
class Verdict:
    """What check() found. complaint: "" when every key has an order."""
    ops: int
    unknown: int
    failed: dict  # {status and label: how many}
    complaint: str


def wrong_until(ops, moment):
    """Whether there is no order for what was answered until that moment."""
    cut = [op if op.end <= moment else dataclasses.replace(op, end=float("inf"), outcome="unknown", before=None)
           for op in ops if op.start <= moment]
    try:
        return explain(cut, thorough=False) is None
    except Undecided:
        return False


def shortest_wrong(ops):
    """The earliest end of the history at which it is wrong already: for people."""
    ends = sorted(op.end for op in ops if op.outcome == "ok")
    low, high = 0, len(ends) - 1
    if not wrong_until(ops, ends[-1]):
        return "no order was found in time"
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if wrong_until(ops, ends[middle]) else (middle + 1, high)
    near = [op for op in ops if op.end >= ends[low] - 0.2 and op.start <= ends[low]]
    return f"no order explains the answers until {ends[low]:.6f}; the last ones:\n" + "\n".join(map(str, near[-30:]))


def check(ops):
    """Whether the history is linearizable, key by key (a property that composes: Herlihy & Wing)."""
    keys, complaint = {}, ""
    for op in ops:
        keys.setdefault(op.key, []).append(op)
    for key, some in keys.items():
        try:
            order = explain(some)
            if order is None:
                found = shortest_wrong(some)
            else:
                check_order(order, some)
                found = check_versions(order)
        except Undecided as e:
            found = f"the search was given up ({e}); {shortest_wrong(some)}"
        if found:
            complaint += f"{key}: {found}\n"
    return Verdict(len(ops), sum(op.outcome == "unknown" for op in ops),
                   dict(collections.Counter(op.detail for op in ops if op.outcome == "fail")), complaint)


# ---- the recorder ----


class Wire(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self):
        self.buffer, self.transport, self.waiting, self.sent = b"", None, None, False

    @classmethod
    async def open(cls, address):
        _, wire = await asyncio.get_running_loop().create_connection(cls, *address)
        return wire

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, exc):
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(exc or ConnectionResetError("closed"))
        self.transport = None

    def data_received(self, data):
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0 or self.waiting is None or self.waiting.done():
            return
        head = self.buffer[:end].lower()
        length = end + 4 + int(head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0] or 0)
        if len(self.buffer) >= length:
            head, body, self.buffer = self.buffer[:end], self.buffer[end + 4:length], self.buffer[length:]
            self.waiting.set_result((int(head[9:12]), head, body))
            if b"\r\nconnection: close" in head.lower():
                self.close()

    async def ask(self, request, seconds=30):
        """(status, head, body). Whatever is raised: no answer has come."""
        if self.transport is None:
            raise ConnectionResetError("closed")
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await asyncio.wait_for(self.waiting, seconds)

    def close(self):
        if self.transport is not None:
            self.transport.abort()
            self.transport = None


def request_of(op, base):
    method = "GET" if op.kind == "read" else "POST"
    target = f"{base}/{op.key}?op={op.kind}&token={op.token}&value={op.value}&expect={op.expect}"
    body = "" if method == "GET" else "Content-Length: 0\r\n"
    return f"{method} {target} HTTP/1.1\r\nHost: a\r\n{body}\r\n".encode()


class Recorder:
    """Clients that work on registers until told to stop, and write down what they asked and heard.

    address  (host, port) of the gateway.
    keys     {name of the key: the beginning of its path}.
    """

    MIX = ["add"] * 10 + ["read"] * 6 + ["put"] * 3 + ["swap"] * 4 + ["end"]

    def __init__(self, address, keys, clients, seed=None):
        self.address, self.keys, self.clients = address, keys, clients
        self.random = random.Random(seed)
        self.ops, self.last, self.ending = [], {}, False
        self.run = os.urandom(3).hex()

    def make(self, who):
        key = self.random.choice(list(self.keys))
        return Op(key, self.random.choice(self.MIX), 0.0, token=f"{self.run}.{len(self.ops)}.{who}",
                  value=self.random.randrange(1000), expect=self.last.get(key, "none"), who=who)

    async def one(self, wire, op):
        """Sends it and writes down what came of it. True: the connection can be used again."""
        op.start = time.monotonic()
        self.ops.append(op)
        try:
            status, head, body = await wire.ask(request_of(op, self.keys[op.key]))
        except (OSError, asyncio.TimeoutError, ValueError) as e:
            op.detail = type(e).__name__
            return False
        op.end = time.monotonic()
        if status == 200:
            told = json.loads(body)
            op.before, op.version, op.outcome = state_of(told["before"]), told["version"], "ok"
            if op.before is not None:
                self.last[op.key] = op.before[1][-1]
        else:
            label = head.lower().partition(b"stateway-error: ")[2].partition(b"\r\n")[0].decode()
            op.outcome, op.detail = "fail", f"{status} {label}"
        return wire.transport is not None

    async def client(self, who):
        wire = None
        while not self.ending:
            try:
                wire = wire or await Wire.open(self.address)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            if not await self.one(wire, self.make(who)):
                wire.close()
                wire = None
        if wire is not None:
            wire.close()

    async def record(self, seconds):
        """Lets the clients work for so long, then reads every key once more: after all is over."""
        running = asyncio.gather(*(self.client(i) for i in range(self.clients)))
        await asyncio.sleep(seconds)
        self.ending = True
        await running
        for key in self.keys:
            wire = await Wire.open(self.address)
            await self.one(wire, Op(key, "read", 0.0, who=-1))
            wire.close()
        return self.ops
