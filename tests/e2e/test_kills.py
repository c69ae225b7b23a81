"""Kills under load: instances at random, the gateway process; what was acknowledged is there, and exactly once.

STATEWAY_KILL_REQUESTS: how many requests a campaign makes (default: 20000).
script/soak runs the same campaigns for as long as one likes.
"""
import asyncio
import os
import random
import signal
import threading
import time

import pytest

from harness import BUILD, Gateway, sanitized, wait_for

COUNTER = BUILD / "apps" / "counter"
CLIENTS = 64
PAUSE_S = 0.3  # between two kills


def requests_wanted():
    return int(os.environ.get("STATEWAY_KILL_REQUESTS", 20000))


def config(state="session", replay="idempotent", replicas=4, **more):
    return {"apps": {"counter": {"command": [str(COUNTER)], "replicas": replicas, "health": {"path": "/healthz"}}},
            "routes": [{"path": "/*", "app": "counter", "state": state, "replay": replay}],
            "log": {"level": "info"}, **more}


# ---- the load: raw sockets, many at once in one thread ----


class Client:
    """One visitor on one connection, one request after the other. `acked`: the numbers the app told."""

    def __init__(self, load):
        self.load, self.reader, self.writer, self.cookie = load, None, None, ""
        self.acked, self.failed = [], []  # failed: (status or exception's name, label)

    async def ask(self, method, path):
        """(status, headers as bytes, body); a lost connection is an exception."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(*self.load.address)
        body = "Content-Length: 0\r\n" if method == "POST" else ""
        self.writer.write(f"{method} {path} HTTP/1.1\r\nHost: a\r\n{body}{self.cookie}\r\n".encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower().replace(b"set-cookie: sid=", b"\0")
        status, length = int(head[9:12]), int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        text = await self.reader.readexactly(length)
        if b"connection: close" in head:
            self.drop()
        return status, head, text

    def drop(self):
        if self.writer is not None:
            self.writer.transport.abort()
        self.reader = self.writer = None

    async def start(self):
        """The first write, so that there is a cookie; nothing is killed yet."""
        reader, writer = await asyncio.open_connection(*self.load.address)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200"), answer
        if b"set-cookie: sid=" in answer.lower():
            sid = answer[answer.lower().index(b"set-cookie: sid=") + 16:].split(b";")[0].decode()
            self.cookie = f"Cookie: sid={sid}\r\n"
        self.acked.append(int(answer.rsplit(b"\r\n\r\n", 1)[1]))
        writer.close()

    async def run(self):
        while self.load.take():
            began = time.monotonic()
            try:
                status, head, text = await asyncio.wait_for(self.ask(self.load.method, self.load.path), 30)
            except (OSError, EOFError, asyncio.TimeoutError, asyncio.LimitOverrunError) as e:
                self.failed.append((type(e).__name__, ""))
                self.drop()
                await asyncio.sleep(0.005)
                continue
            now = time.monotonic()
            if status == 200:
                self.acked.append(int(text))
                self.load.answered(began, now)
            else:
                label = head.split(b"stateway-error: ")[-1].split(b"\r\n")[0].decode() if b"stateway-error" in head else ""
                self.failed.append((status, label))
        self.drop()


class Load:
    """Runs in a thread: `count` requests, or until stop()."""

    def __init__(self, gateway, method, path, count=None, clients=CLIENTS):
        self.address, self.method, self.path, self.left = gateway.address, method, path, count
        self.clients = [Client(self) for _ in range(clients)]
        self.done, self.stopping, self.slowest = 0, False, 0.0
        self.last, self.gaps = None, []  # when an answer came last; the longest silences between two
        self.started = threading.Event()
        self.thread = threading.Thread(target=self._main, daemon=True)
        self.error = None

    def take(self):
        if self.stopping or self.left == 0:
            return False
        if self.left is not None:
            self.left -= 1
        return True

    def answered(self, began, now):
        self.done += 1
        self.slowest = max(self.slowest, now - began)
        if self.last is not None and now - self.last > 0.02:
            self.gaps.append((self.last, now))
        self.last = now

    def _main(self):
        async def everything():
            await asyncio.gather(*(c.start() for c in self.clients))
            self.started.set()
            await asyncio.gather(*(c.run() for c in self.clients))
        try:
            asyncio.run(everything())
        except BaseException as e:  # told by join()
            self.error = e
            self.started.set()

    def __enter__(self):
        self.thread.start()
        assert self.started.wait(30)
        return self

    def __exit__(self, kind, *_):
        self.stopping = self.stopping or kind is not None
        self.thread.join(300)
        if kind is None:
            assert not self.thread.is_alive()
            if self.error:
                raise self.error

    def stop(self):
        self.stopping = True

    @property
    def failed(self):
        return [f for c in self.clients for f in c.failed]

    def silence_around(self, moment):
        """The longest time without any answer that has something to do with that moment."""
        return max((b - a for a, b in self.gaps if a - 0.05 <= moment <= b + 2), default=0.0)

    def check_counts(self, gateway):
        """Acknowledged and committed agree: what failed may have been committed, nothing else; and no number
        was told twice or went back."""
        unknown = 0
        for client in self.clients:
            told = client.acked
            assert all(a < b for a, b in zip(told, told[1:])), f"went back or came twice: {told[-20:]}"
            got = gateway.get("/read", headers=[tuple(client.cookie.strip().split(": ", 1))])
            assert got.status == 200
            committed = int(got.body)
            assert told[-1] <= committed
            assert len(told) <= committed <= len(told) + len(client.failed), (
                len(told), committed, client.failed)
            unknown += committed - len(told)
        return unknown


# ---- campaigns, also of script/soak ----


class InstanceKiller:
    """SIGKILL to a random instance, again and again."""

    def __init__(self, gateway, pause_s=PAUSE_S, seed=None):
        self.gateway, self.pause_s, self.kills = gateway, pause_s, 0
        self.random = random.Random(seed)
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._main, daemon=True)

    def _main(self):
        while not self.ending.wait(self.pause_s):
            pids = list(self.gateway.instances().values())
            if pids:
                try:
                    os.kill(self.random.choice(pids), signal.SIGKILL)
                    self.kills += 1
                except ProcessLookupError:
                    pass

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join()


def kill_instances(gateway, method, path, count=None, seconds=None):
    """A campaign against instances: the figures, the load (for checks)."""
    began = time.monotonic()
    with Load(gateway, method, path, count) as load:
        with InstanceKiller(gateway) as killer:
            while load.thread.is_alive():
                load.thread.join(0.1)
                if seconds is not None and time.monotonic() - began > seconds:
                    load.stop()
    took = time.monotonic() - began
    return {"requests": load.done + len(load.failed), "failed": len(load.failed), "kills": killer.kills,
            "seconds": round(took, 1), "slowest_ms": round(load.slowest * 1000)}, load


def kill_gateway(gateway, rounds, pause_s=1.2):
    """A campaign against the gateway process, under load."""
    instances = gateway.instances()
    outages = []
    with Load(gateway, "POST", "/") as load:
        for _ in range(rounds):
            time.sleep(pause_s)  # one that lived for a second is restarted at once
            moment = time.monotonic()
            gateway.kill_gateway()
            done = load.done
            wait_for(lambda: load.done > done + len(load.clients), 15)
            outages.append(load.silence_around(moment))
            assert gateway.instances() == instances, "the instances live on"
        load.stop()
    return {"requests": load.done + len(load.failed), "failed": len(load.failed), "kills": rounds,
            "outage_ms_median": round(sorted(outages)[len(outages) // 2] * 1000),
            "outage_ms_worst": round(max(outages) * 1000)}, load


# ---- tests ----


def report(figures):
    print(" ".join(f"{k}={v}" for k, v in figures.items()))


@pytest.fixture(autouse=True)
def counter_there():
    if not COUNTER.exists():
        pytest.skip("the counter is not built (libmicrohttpd, jansson)")


def test_instances_die_under_stateless_reads(gateway, engine):
    """Every one of these could be repeated, so none may fail."""
    g = gateway(config("none"), engine=engine)
    figures, load = kill_instances(g, "GET", "/read", requests_wanted())
    report(figures)
    assert load.failed == []
    assert figures["requests"] == requests_wanted()
    assert figures["kills"] >= 3


def test_instances_die_under_repeatable_writes(gateway, engine):
    """replay: safe: the app itself changes nothing, so a write may be given to another instance."""
    g = gateway(config("session", replay="safe"), engine=engine)
    figures, load = kill_instances(g, "POST", "/", requests_wanted())
    report(figures)
    assert load.failed == []
    assert load.check_counts(g) == 0
    assert figures["kills"] >= 3


def test_instances_die_under_writes(gateway, engine):
    """Only the requests that died with their instance fail, and they have changed nothing."""
    g = gateway(config("session"), engine=engine)
    figures, load = kill_instances(g, "POST", "/", requests_wanted())
    report(figures)
    assert set(load.failed) <= {(502, "app-closed")}, set(load.failed)
    assert len(load.failed) <= figures["kills"] * CLIENTS
    assert load.check_counts(g) == 0, "an update of a failed answer was committed"
    assert figures["kills"] >= 3


def test_instances_die_under_writing_reads(gateway, engine):
    """GET that writes: safe, so it is repeated, whatever happens to it."""
    g = gateway(config("session"), engine=engine)
    figures, load = kill_instances(g, "GET", "/", requests_wanted() // 2)
    report(figures)
    assert load.failed == []
    assert load.check_counts(g) == 0


def test_gateway_dies_under_writes(gateway, engine):
    g = gateway(config("session"), engine=engine)
    figures, load = kill_gateway(g, 3)
    report(figures)
    # Connections were cut; no answer was wrong.
    assert all(isinstance(kind, str) for kind, _ in load.failed), load.failed
    unknown = load.check_counts(g)
    assert unknown <= len(load.failed)
    assert figures["outage_ms_worst"] < (4000 if sanitized() else 1000)
