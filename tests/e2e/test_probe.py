"""How large a header an app's server takes: tried when an instance becomes healthy, and heeded from then on.

Servers with the habits of real ones, and real ones where they are installed.
"""
import json
import re
import shutil
import threading
import time

import pytest

from harness import PYTHON, Origin, answer, wait_for

REQUESTS_MAX = 9  # of one probe
TOLD = re.compile(r"refuses requests with a state of (\d+) bytes in a header \((.*?)\); states above (\d+) bytes go by")


def respond(asked, raw):
    """The state's headers as they came; with X-Set the state becomes that many bytes."""
    headers = []
    if asked.get("x-set"):
        headers.append(("Stateway-Set", json.dumps({"x": "y" * (int(asked.get("x-set")) - 8)}, separators=(",", ":"))))
    told = {k.lower(): v for k, v in asked.headers if k.lower().startswith("stateway")}
    return answer(200, json.dumps(told), headers)


class Limited(Origin):
    """head_max: a head above it is treated by `refuse(asked, raw)`."""

    sees_checks = True

    def __init__(self, head_max, refuse):
        self.head_max, self.refuse = head_max, refuse
        super().__init__(self._limited)

    def _limited(self, asked, raw):
        if len(asked.raw) + 4 > self.head_max:
            return self.refuse(asked, raw)
        return respond(asked, raw)

    @property
    def probes(self):
        return [a for a in self.asked if a.get("user-agent") == "stateway-health"]


def closes(_, raw):
    raw.close()


def says(status, reason):
    return lambda asked, raw: answer(status, b"", [("Connection", "close")], reason)


@pytest.fixture
def limited():
    running = []

    def start(*args):
        running.append(Limited(*args))
        return running[-1]

    yield start
    for one in running:
        one.close()


def config(app, inline="4KiB", **session):
    return {"apps": {"a": app}, "routes": [{"path": "/*", "app": "a", "state": "session",
                                            "session": {"inline": inline, **session}}]}


def told(gateway):
    """(bytes asked with, why, limit) as logged; at most once."""
    lines = TOLD.findall(gateway.log())
    assert len(lines) <= 1, lines
    return (int(lines[0][0]), lines[0][1], int(lines[0][2])) if lines else None


def state_of(gateway, size):
    """What an app is told of a state of that many bytes that it had set before."""
    cookies = {}
    assert gateway.post("/", headers=[("X-Set", str(size))], cookies=cookies).status == 200
    got = gateway.get("/", cookies=cookies)
    assert got.status == 200, got
    return got.json()


# ---- in the manner of ----


@pytest.mark.parametrize("head_max, refuse, why, limit", [
    (3900, closes, "it closes", 1024),  # uWSGI --http-socket
    (4096, says(400, "Bad Request"), "it answers 400", 1024),  # uWebSockets
    (6000, says(431, "Request Header Fields Too Large"), "it answers 431", 2048),
    (6000, says(500, "fastcgi request record is too big"), "it answers 500", 2048),
    (600, closes, "it closes", 0),
])
def test_limit_is_found_and_heeded(gateway, limited, engine, head_max, refuse, why, limit):
    origin = limited(head_max, refuse)
    g = gateway(config({"servers": [origin.address]}), engine=engine)
    wait_for(lambda: told(g), 10, "the log names the limit")
    assert told(g) == (4096, why, limit)
    assert len(origin.probes) <= REQUESTS_MAX
    if limit >= 100:
        small = state_of(g, limit)
        assert len(small["stateway-state"]) == limit
        assert small["stateway-state-info"].startswith("inline;")
    if limit > 0:  # at 600 bytes not even our other lines find room
        large = state_of(g, limit + 1)
        assert "stateway-state" not in large
        assert large["stateway-state-info"].startswith("ref")
        assert large["stateway-ref"].startswith("http://127.0.0.1:")
    instances = g.apps()["a"]
    assert {i["state"] for i in instances} == {"healthy"}
    assert len(origin.probes) <= REQUESTS_MAX  # and that was all


def test_server_that_takes_all(gateway, limited, engine):
    origin = limited(1 << 20, closes)
    g = gateway(config({"servers": [origin.address], "health": {"path": "/healthz"}}, "16KiB"), engine=engine)
    probe = wait_for(lambda: [a for a in origin.probes if a.get("stateway-probe")], 10)
    assert [(a.method, a.target, len(a.get("stateway-probe"))) for a in probe] == [("GET", "/healthz", 16384)]
    assert len(state_of(g, 16384)["stateway-state"]) == 16384
    assert told(g) is None
    assert len([a for a in origin.probes if a.get("stateway-probe")]) == 1


def test_not_for_other_placements(gateway, limited):
    origin = limited(1 << 20, closes)
    g = gateway({"apps": {"a": {"servers": [origin.address]}},
                 "routes": [{"path": "/n/*", "app": "a"}, {"path": "/s/*", "app": "a", "state": "sticky"}]})
    assert g.get("/n/").status == 200
    time.sleep(0.5)
    assert origin.probes == []


def test_app_that_refuses_a_plain_request_too(gateway, limited):
    """HEAD / may be 400 or 500 to an app; that says nothing about the size."""
    def odd(asked, raw):
        return answer(500 if asked.method == "HEAD" else 200, b"{}")
    origin = limited(0, odd)
    g = gateway(config({"servers": [origin.address]}))
    wait_for(lambda: len(origin.probes) >= 2, 10)
    time.sleep(0.5)
    assert [a.method for a in origin.probes] == ["HEAD", "HEAD"]
    assert told(g) is None
    assert g.get("/").status == 200
    assert {i["state"] for i in g.apps()["a"]} == {"healthy"}


def test_probe_holds_nobody_up(gateway, limited):
    """A server that never answers a large head: healthy and serving meanwhile, and soon left alone."""
    hold = threading.Event()

    def hangs(asked, raw):
        hold.wait(30)
        raise EOFError
    origin = limited(3900, hangs)
    began = time.monotonic()
    g = gateway(config({"servers": [origin.address], "health": {"path": "/healthz", "interval": "500ms",
                                                               "timeout": "500ms"}}))
    assert g.get("/").status == 200
    assert time.monotonic() - began < 15
    for _ in range(20):
        assert g.get("/").status == 200
        time.sleep(0.05)
    wait_for(lambda: len([a for a in origin.probes if a.get("stateway-probe")]) == 3, 15)
    time.sleep(1)
    assert len([a for a in origin.probes if a.get("stateway-probe")]) == 3
    assert told(g) is None
    assert {i["state"] for i in g.apps()["a"]} == {"healthy"}
    hold.set()


SPAWNED = r'''
import http.server, os, pathlib, socketserver
limit = int(pathlib.Path(os.environ["LIMIT_FILE"]).read_text())
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.request.recv(65536)
            if not data:
                return
            head += data
            if len(head) > limit:
                return
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
'''


def test_next_incarnation_raises_it(gateway, tmp_path):
    """The app is repaired and rolled: its limit is what the new one takes."""
    file = tmp_path / "limit"
    file.write_text("3900")
    g = gateway(config({"command": [PYTHON, "-c", SPAWNED.replace("$", "$$")], "replicas": 2,
                        "environment": {"LIMIT_FILE": str(file)}}))
    wait_for(lambda: told(g), 10)
    assert told(g) == (4096, "it closes", 1024)  # once, not once a replica
    file.write_text("100000")
    before = g.instances()
    assert g.admin("POST", "/v1/apps/a/roll").status in (200, 202)
    wait_for(lambda: not set(before.values()) & set(g.instances().values()) and len(g.instances()) == 2, 30)
    g.wait_log("a takes states of 4096 bytes in a header again")
    assert told(g) is not None  # nothing new was found wanting


def test_after_a_kill_of_the_gateway(gateway, limited):
    """A gateway that begins anew finds it out anew."""
    origin = limited(3900, closes)
    g = gateway(config({"servers": [origin.address]}))
    wait_for(lambda: len(TOLD.findall(g.log())) == 1, 10)
    g.kill_gateway()
    wait_for(lambda: len(TOLD.findall(g.log())) == 2, 10)
    assert TOLD.findall(g.log())[1][2] == "1024"


# ---- the real ones ----


NODE = r"""
require('http').createServer((req, res) => res.end('{}')).listen(+process.env.PORT, '127.0.0.1');
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("inline, limit", [("12KiB", None), ("16KiB", 8192)])
def test_node(gateway, inline, limit):
    """Node takes 16 KB of headers in all, and says 431 beyond."""
    g = gateway(config({"command": ["node", "-e", NODE.replace("$", "$$")]}, inline))
    if limit:
        wait_for(lambda: told(g), 15)
        assert told(g) == (16384, "it answers 431", limit)
    else:
        time.sleep(1)
        assert told(g) is None
    assert {i["state"] for i in g.apps()["a"]} == {"healthy"}


@pytest.mark.skipif(shutil.which("gunicorn") is None, reason="gunicorn is not installed")
@pytest.mark.parametrize("inline, limit", [("7KiB", None), ("16KiB", 4096)])
def test_gunicorn(gateway, tmp_path, inline, limit):
    """gunicorn takes 8190 bytes a line, and says 400 beyond."""
    (tmp_path / "wsgi.py").write_text("def app(environ, start):\n    start('200 OK', [('Content-Length', '2')])\n"
                                      "    return [b'{}']\n")
    g = gateway(config({"command": ["gunicorn", "-b", "127.0.0.1:{port}", "--chdir", str(tmp_path),
                                    "wsgi:app"]}, inline))
    if limit:
        wait_for(lambda: told(g), 15)
        assert told(g) == (16384, "it answers 400", limit)
    else:
        time.sleep(1)
        assert told(g) is None


def test_http_server_of_python(gateway):
    """64 KB a line: nothing that we send is too long for it."""
    g = gateway(config({"command": [PYTHON, "-m", "http.server", "-b", "127.0.0.1", "{port}"],
                        "health": {"path": "/"}}, "16KiB"))
    time.sleep(1)
    assert told(g) is None
