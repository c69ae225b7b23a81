"""Upgraded connections: a WebSocket through the gateway, and raw tunnels. See origins/stage.py."""
import asyncio
import os
import socket
import threading
import time

import pytest

from harness import Gateway, Raw, answer, request_bytes, wait_for
from origins.stage import Services, Stage, memory

websockets = pytest.importorskip("websockets")
MIB = 1024 * 1024
HELLO = (b"GET %s HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: raw/1\r\n\r\n")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw/1\r\nX-Tunnel: yes\r\n\r\n"


class Echo:
    """A WebSocket server on a thread; it echoes, and counts."""

    def __init__(self):
        self.loop, self.ready = asyncio.new_event_loop(), threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert self.ready.wait(10)

    def _run(self):
        async def main():
            async def handler(ws, path=None):
                async for message in ws:
                    await ws.send(message)
            self.end = asyncio.Event()
            async with websockets.serve(handler, "127.0.0.1", 0, max_size=None, compression=None,
                                        subprotocols=["chat"]) as server:
                self.port = server.sockets[0].getsockname()[1]
                self.ready.set()
                await self.end.wait()
        self.loop.run_until_complete(main())

    def close(self):
        self.loop.call_soon_threadsafe(self.end.set)
        self.thread.join(10)
        self.loop.close()


@pytest.fixture(scope="module")
def stage():
    with Stage() as one:
        yield one


@pytest.fixture(scope="module")
def services(stage):
    echo = Echo()

    def config(_):
        return {"apps": {"a": {"servers": [stage.address]}, "ws": {"servers": [f"127.0.0.1:{echo.port}"]}},
                "routes": [{"path": "/*", "app": "a"}, {"path": "/ws/*", "app": "ws"},
                           {"path": "/pinned/*", "app": "ws", "state": "sticky"}],
                "timeouts": {"idle": "1s", "send": "1s", "exchange": "2s", "head": "2s"}}
    running = Services(config)
    yield running
    running.close()
    echo.close()


@pytest.fixture
def service(services, engine):
    return services(engine)


def talk(service, path, play):
    async def main():
        url = f"ws://{service.config['listen'][0]['address']}{path}"
        async with websockets.connect(url, max_size=None, compression=None, subprotocols=["chat"],
                                      open_timeout=20, close_timeout=20) as ws:
            await play(ws)
    asyncio.run(main())


@pytest.mark.parametrize("path", ["/ws/echo", "/pinned/echo"])
def test_websocket_echo(service, path):
    async def play(ws):
        assert ws.subprotocol == "chat"
        for message in ("hello", "", "\u20ac" * 1000, b"\0\xff" * 5000):
            await ws.send(message)
            assert await ws.recv() == message
        await (await ws.ping())
        for i in range(200):
            await ws.send(str(i))
        assert [await ws.recv() for _ in range(200)] == [str(i) for i in range(200)]
    talk(service, path, play)


def test_websocket_large_frames(service):
    data = os.urandom(4 * MIB)

    async def play(ws):
        for _ in range(2):
            await ws.send(data)
            assert await ws.recv() == data
    talk(service, "/ws/large", play)


def test_websocket_outlives_the_times_of_requests(service):
    async def play(ws):
        await asyncio.sleep(2.5)
        await ws.send("still here")
        assert await ws.recv() == "still here"
    talk(service, "/ws/idle", play)


def test_many_websockets(service):
    async def one(i):
        url = f"ws://{service.config['listen'][0]['address']}/ws/{i}"
        async with websockets.connect(url, compression=None, open_timeout=20, close_timeout=20) as ws:
            for n in range(5):
                await ws.send(f"{i} {n}")
                assert await ws.recv() == f"{i} {n}"

    async def main():
        await asyncio.gather(*(one(i) for i in range(50)))
    asyncio.run(main())


def tunnel(service, stage, act):
    """A raw tunnel: act(raw) plays the app's side after the switch."""
    failed = []

    def run(asked, raw):
        assert asked.get("upgrade") == "raw/1" and "upgrade" in asked.get("connection").lower()
        raw.send(SWITCH)
        try:
            act(raw)
        except AssertionError as e:
            failed.append(e)
        raise EOFError
    raw = service.connect()
    raw.send(HELLO % stage.on(run).encode())
    head = raw.read_head()
    assert (head.status, head.get("upgrade"), head.get("x-tunnel")) == (101, "raw/1", "yes")
    assert head.get("connection") == "Upgrade" and head.get("content-length") is None
    return raw, failed


def test_bytes_behind_both_heads_are_not_lost(service, stage):
    def run(asked, raw):
        raw.send(SWITCH + b"from the app")
        assert raw._exactly(15) == b"from the client"
        raw.send(b"!")
        raise EOFError
    with service.connect() as raw:
        raw.send(HELLO % stage.on(run).encode() + b"from the client")
        assert raw.read_head().status == 101
        assert raw._exactly(12) == b"from the app"
        assert raw._exactly(1) == b"!"


def test_half_close_of_the_client(service, stage):
    got = []

    def act(raw):
        got.append(raw.read_rest())
        raw.send(b"x" * 500000 + b"end")
    raw, failed = tunnel(service, stage, act)
    with raw:
        raw.send(b"y" * 300000)
        raw.shutdown()
        assert raw.read_rest() == b"x" * 500000 + b"end"
    assert got == [b"y" * 300000] and not failed


def test_half_close_of_the_app(service, stage):
    got, done = [], threading.Event()

    def act(raw):
        raw.send(b"bye")
        raw.shutdown()
        time.sleep(0.3)  # its queue fills meanwhile
        got.append(len(raw.read_rest()))
        done.set()
    raw, failed = tunnel(service, stage, act)
    with raw:
        assert raw.read_rest() == b"bye"
        raw.send(b"z" * 8 * MIB)
        raw.shutdown()
        assert done.wait(20)
    assert got == [8 * MIB] and not failed


@pytest.mark.parametrize("side", ["client", "app"])
def test_back_pressure(service, stage, side):
    """The one side does not read: the other is stopped, the gateway does not grow, nothing is lost."""
    size, go, total = 30 * MIB, threading.Event(), []
    pid = service.gateway_pid()
    before = memory(pid)

    def write(raw):
        raw.send(b"p" * size)
        raw.shutdown()

    def read(raw):
        assert go.wait(30)
        count = 0
        while True:
            data = raw.socket.recv(65536)
            if not data:
                break
            count += len(data)
        total.append(count + len(raw.buffer))
    raw, failed = tunnel(service, stage, read if side == "app" else write)
    with raw:
        mine = threading.Thread(target=write if side == "app" else read, args=(raw,))
        mine.start()
        time.sleep(0.8)
        grown = memory(pid) - before
        go.set()
        mine.join(30)
        wait_for(lambda: total, 30)
    assert total == [size] and not failed
    assert grown < 8 * MIB, grown


def test_tunnel_ends_when_a_side_breaks(service, stage):
    ended = threading.Event()

    def act(raw):
        try:
            raw.read_rest()
        except OSError:
            pass
        ended.set()
    raw, _ = tunnel(service, stage, act)
    raw.reset()
    assert ended.wait(10)
    raw, _ = tunnel(service, stage, lambda app: app.reset())
    with raw:
        assert raw.is_closed(10)


def test_app_declines_an_upgrade(service, stage):
    with service.connect() as raw:
        raw.send(HELLO % stage.says(answer(426, b"no", {"Upgrade": "other"})).encode())
        assert raw.read().status == 426
        assert raw.request("GET", "/next").status == 200


def test_upgrade_is_not_asked_for_by_1_0_or_without_connection(service, stage):
    with service.connect() as raw:
        got = raw.request("GET", "/plain", {"Upgrade": "websocket"}).json()
        assert not [n for n, _ in got["headers"] if n.lower() == "upgrade"]
        raw.send(b"GET /plain HTTP/1.0\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        got = raw.read().json()
        assert not [n for n, _ in got["headers"] if n.lower() == "upgrade"]


def test_h2c_upgrade_is_harmless(service, stage):
    """An app that takes it would tunnel requests past every route (h2c smuggling)."""
    with service.connect() as raw:
        got = raw.request("GET", "/h2c", {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c",
                                          "HTTP2-Settings": "AAMAAABk"})
        assert got.status == 200
        names = [n.lower() for n, _ in got.json()["headers"]]
        assert "http2-settings" not in names and "upgrade" not in names


def test_stopping_ends_tunnels(stage, engine):
    with Gateway({"apps": {"a": {"servers": [stage.address]}}, "routes": [{"path": "/*", "app": "a"}],
                  "timeouts": {"stop": "1s"}}, engine=engine) as one:
        raw, _ = tunnel(one, stage, lambda app: app.read_rest())
        begun = time.monotonic()
        with raw:
            assert one.stop() == 0
            assert time.monotonic() - begun < 15
            assert raw.is_closed()
        one.check()
