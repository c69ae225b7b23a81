"""What goes on must mean the same to other servers: seven of them read what the gateway sent to an app.

Mutated requests (a fixed seed; STATEWAY_DIFFERENTIAL is their number, default 600 an engine) and the vectors go
through the gateway, each with a marker request behind it, to an origin that writes down what it got and reads
it with a reader of its own. Those very bytes are then given to gunicorn, waitress, tornado, aiohttp, puma, Node
and Go, again with a marker behind: each must see the same method, target, Host, field and body, and then
the marker; or refuse. Servers that are not installed are left out.
"""
import base64
import hashlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from harness import PYTHON, free_port, wait_for
from origins.recording import Recorder
from test_wire_vectors import VECTORS

HERE = Path(__file__).parent / "origins"
COUNT = int(os.environ.get("STATEWAY_DIFFERENTIAL", "600"))
MARKER = b"GET /marker HTTP/1.1\r\nHost: marker\r\n\r\n"


# ---- the servers ----


def commands(folder):
    """{name: function of the port that gives the command}, of those that are installed."""
    found = {}
    def there(module):
        return subprocess.run([PYTHON, "-c", f"import {module}"], stderr=subprocess.DEVNULL, check=False).returncode == 0
    if there("gunicorn"):
        found["gunicorn"] = lambda port: [PYTHON, "-m", "gunicorn.app.wsgiapp", "-k", "gthread", "--threads", "4", "-b",
                                          f"127.0.0.1:{port}", "--keep-alive", "30", "--worker-tmp-dir", str(folder),
                                          "--chdir", str(HERE), "wsgi:app"]
    if there("waitress"):
        found["waitress"] = lambda port: [PYTHON, "-m", "waitress", "--host", "127.0.0.1", "--port", str(port), "wsgi:app"]
    for name in ("tornado", "aiohttp"):
        if there(name):
            found[name] = lambda port, name=name: [PYTHON, str(HERE / f"{name}_app.py"), str(port)]
    if shutil.which("puma"):
        found["puma"] = lambda port: ["puma", "-b", f"tcp://127.0.0.1:{port}", "-t", "2:4", "-e", "production",
                                      str(HERE / "puma.ru")]
    if shutil.which("node"):
        found["node"] = lambda port: ["node", str(HERE / "node_app.js"), str(port)]
    if shutil.which("go"):
        environment = {**os.environ, "GOCACHE": str(folder / "go"), "GOFLAGS": "-mod=mod", "GO111MODULE": "off",
                       "GOPATH": str(folder / "gopath")}
        built = subprocess.run(["go", "build", "-o", str(folder / "origin"), str(HERE / "go" / "main.go")],
                               env=environment, capture_output=True, timeout=120, check=False)
        assert built.returncode == 0, built.stderr
        found["go"] = lambda port: [str(folder / "origin"), str(port)]
    return found


@pytest.fixture(scope="module")
def servers():
    """{name: port} of running servers."""
    folder, running, ports = Path(tempfile.mkdtemp(prefix="stateway-diff-")), [], {}
    try:
        for name, command in commands(folder).items():
            ports[name] = free_port()
            with open(folder / f"{name}.log", "wb") as log:
                running.append(subprocess.Popen(command(ports[name]), cwd=HERE, stdout=log, stderr=log,
                                                stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}))

        def listens(name):
            try:
                socket.create_connection(("127.0.0.1", ports[name]), 1).close()
                return True
            except OSError:
                return False
        for name in ports:
            wait_for(lambda name=name: listens(name), 30, f"{name}: {(folder / (name + '.log')).read_text()}")
        yield ports
    finally:
        for one in running:
            one.terminate()
        for one in running:
            try:
                one.wait(10)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()
        shutil.rmtree(folder, ignore_errors=True)


# ---- mutations ----

BLANKS = [b"", b" ", b"  ", b"\t", b" \t", b"\x0b", b"\x0c", b"\xa0", b"\0", b"\r", b"\n", b"\r\n ", b"\r\n\t"]
ENDS = [b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\r\n", b"\0\r\n", b" \r\n"]
METHODS = [b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"HEAD", b"PROPFIND", b"get", b"G\tT", b"POST ", b"",
           b"CONNECT", b"TRACE", b"M-SEARCH"]
TARGETS = [b"/", b"/a", b"/a?b=c", b"/a%20b", b"/a%2Fb", b"/%61", b"//a", b"/a//b", b"/a;b=c", b"/a?b?c", b"/a?", b"/a%3Fb",
           b"/a%23b", b"/a%0ab", b"/a%09", b"/%7f", b"/%c3%a9", b"/%ff", b"/a+b", b"/~a", b"/a'b(c)", b"/a:b", b"*", b"/a\\b",
           b"/./a", b"/a/../b", b"/a#b", b"http://host/a", b"http://other/a", b"/\xc3\xa9", b"/a b", b"a", b"/a%", b"/[a]",
           b"/a|b", b"/{a}", b"/a\"b", b"/a^b", b"/a`b", b"/a<b>", b"http://host", b"/a?b=%0d%0a", b"/a?b[]=c|d", b"/a%25b"]
VERSIONS = [b"HTTP/1.1"] * 8 + [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 ", b"HTTP/01.1", b""]
HOSTS = [b"host"] * 8 + [b"host:80", b"HOST", b"", b"ho st", b"host,other", b"[::1]", b"[::1]:8080", b"a@host", b"host:99999",
                         b"host/", b"h\xc3\xb6st", b"host.", b"127.0.0.1:1", b"host_a"]
LENGTH_NAMES = [b"Content-Length"] * 6 + [b"content-length", b"Content_Length", b"Content-Length ", b" Content-Length",
                                          b"Content-Length\t", b"X-Content-Length", b"Content-Length\0", b"Content--Length"]
LENGTHS = [b"%d"] * 8 + [b"+%d", b"-%d", b"0%d", b"%d,%d", b"%d ", b"0x%x", b"%d.0", b"%de0", b"\"%d\"", b"%d;a=b", b"1%d", b"",
                         b"18446744073709551616", b"99999999999999999999", b"%d\x0b", b"%d\xa0"]
CODING_NAMES = [b"Transfer-Encoding"] * 6 + [b"transfer-encoding", b"Transfer_Encoding", b"Transfer-Encoding ",
                                             b" Transfer-Encoding", b"X-Transfer-Encoding", b"Transfer-Encoding\t"]
CODINGS = [b"chunked"] * 8 + [b"Chunked", b"chunked ", b"\x0bchunked", b"chunked;a=b", b"identity", b"gzip, chunked",
                              b"chunked, identity", b"chunked, chunked", b"xchunked", b"chunke", b"", b"chunked,", b",chunked",
                              b"\"chunked\"", b"cow", b"chunked\0"]
SIZES = [b"%x"] * 10 + [b"%X", b"0%x", b"00000000%x", b"0x%x", b"+%x", b"-%x", b" %x", b"%x ", b"%x;a=b", b"%x;a=\"b\"",
                        b"%x;a", b"%x ;a=b", b"%x;", b"%x\t", b"%x;a=\"\r\n", b"%x\0", b"ffffffffffffffff%x", b"%xg", b""]
NAMES = [b"X-A"] * 6 + [b"x-a", b"X_A", b"X-A ", b"X A", b"X\tA", b"X-A\0", b"", b"X(A)", b"X-\xe9", b"Host", b"Content-Type",
                        b"Connection", b"Expect", b"TE", b"Trailer", b"Upgrade", b"X-HTTP-Method-Override"]
VALUES = [b"v", b"v", b"a, b", b"", b" v ", b"v\x0b", b"v\0w", b"v\x7fw", b"\xc3\xa9", b"v\r\n w", b"\"", b"a=b; c", b"close",
          b"upgrade", b"100-continue", b"trailers", b"v:w", b"v" * 300, b"\tv"]


def some(rng, table, rate):
    """The first of the table, which is the sound one; with that rate any."""
    return rng.choice(table) if rng.random() < rate else table[0]


def mutated(rng):
    """A request that is sound but for a few things."""
    rate = rng.choice((0.03, 0.08, 0.2))
    eol = lambda: some(rng, ENDS, rate / 3)
    body = bytes(rng.choice(b"abGET /x HTTP/1.1\r\n") for _ in range(rng.choice((0, 1, 5, 40))))
    kind = rng.choice(("none", "length", "length", "chunked", "chunked", "both" if rng.random() < 0.3 else "chunked"))
    method = rng.choice(METHODS[:6]) if kind == "none" else rng.choice((b"POST", b"PUT", b"GET", b"DELETE"))
    lines = [some(rng, [method] + METHODS, rate) + some(rng, [b" "] + BLANKS, rate / 2) +
             some(rng, [rng.choice(TARGETS[:20])] + TARGETS, rate * 2) + some(rng, [b" "] + BLANKS, rate / 2) +
             some(rng, VERSIONS, rate), b"Host:" + some(rng, [b" "] + BLANKS, rate / 2) + some(rng, HOSTS, rate * 2)]
    fields = []
    if kind in ("length", "both"):
        form = some(rng, LENGTHS, rate * 2)
        fields.append(some(rng, LENGTH_NAMES, rate) + b":" + some(rng, [b" "] + BLANKS, rate) +
                      form.replace(b"%d", b"%d" % len(body)).replace(b"%x", b"%x" % len(body)))
    if kind in ("chunked", "both"):
        fields.append(some(rng, CODING_NAMES, rate) + b":" + some(rng, [b" "] + BLANKS, rate) + some(rng, CODINGS, rate * 2))
    if fields and rng.random() < rate:
        fields.append(rng.choice(fields))
    for _ in range(rng.randrange(3)):
        fields.append(some(rng, NAMES, rate * 2) + some(rng, [b":"] + [b" :", b"", b"=", b"::"], rate / 2) +
                      some(rng, [b" "] + BLANKS, rate) + some(rng, VALUES, 0.5))
    rng.shuffle(fields)
    lines += fields
    if kind in ("chunked", "both"):
        sent, rest = b"", body
        while rest:
            n = rng.randrange(1, len(rest) + 1)
            sent += some(rng, SIZES, rate * 2).replace(b"%x", b"%x" % n).replace(b"%X", b"%X" % n) + eol() + rest[:n] + eol()
            rest = rest[n:]
        body = sent + some(rng, [b"0", b"00", b"0;a=b", b"0 ", b"-0", b"", b"0x0"], rate) + eol()
        if rng.random() < 0.15:
            body += some(rng, [b"X-A: trailer", b"Content-Length: 5", b"X A: b", b"X-A : b", b" folded"], 0.4) + eol()
        body += eol()
    data = b"".join(line + eol() for line in lines) + eol() + body
    if rng.random() < rate / 2:  # a byte anywhere
        at = rng.randrange(len(data))
        data = data[:at] + bytes([rng.randrange(256)]) + data[at + rng.randrange(2):]
    return data


def vectors():
    found = []
    for name in ("http11probe/cases.json", "smuggler-te-mutations/payloads.json"):
        if (VECTORS / name).exists():
            found += [base64.b64decode(case["request_base64"]) for case in json.loads((VECTORS / name).read_text())]
    return found


# ---- through the gateway ----


def through(address, data):
    """Sends it with a marker behind; the statuses of the answers that came."""
    with socket.create_connection(address, timeout=10) as client:
        client.settimeout(10)
        got = b""
        try:
            client.sendall(data + MARKER)
            client.shutdown(socket.SHUT_WR)
            while True:
                more = client.recv(65536)
                if not more:
                    break
                got += more
        except ConnectionError:
            pass
    return got


def understood(seen):
    path, mark, query = seen.target.partition("?")
    return {"method": seen.method, "path": unquote_to_bytes(path.encode("latin-1")), "query": query, "raw": seen.target,
            "host": seen.all("host")[0], "a": [v for v in seen.all("x-a") if v], "joined": bool(seen.all("x_a")), "length": len(seen.body),
            "sha256": hashlib.sha256(seen.body).hexdigest()}


METHODS_KNOWN = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT")


def differs(want, said):
    """The names on which a server disagrees. said: its JSON; path and query where a server tells no raw target."""
    found = [name for name in ("length", "sha256", "host") if want[name] != said.get(name)]
    if said["method"] not in (want["method"], want["method"].upper()):  # gunicorn has capitals only
        found.append("method")
    if said["method"] in METHODS_KNOWN and said["method"] != want["method"]:
        found.append("method, a known one")
    if "raw" in said:
        if said["raw"] != want["raw"]:
            found.append("target")
    else:
        path = said["path"].encode("latin-1")
        path = unquote_to_bytes(path) if said.get("encoded") else path
        if want["path"].startswith(b"//"):  # waitress makes one slash of those in front: its own way, and harmless here
            path, want = path.lstrip(b"/"), {**want, "path": want["path"].lstrip(b"/")}
        if path != want["path"] and want["raw"] != "*":
            found.append("path")
        if said["query"] != want["query"]:
            found.append("query")
    if want["joined"]:
        return found  # CGI has one name for X-A and X_A: servers join them, drop one, or take the last
    values = "".join(want["a"])
    if values.isascii() and re.sub("[, ]", "", said.get("a") or "") != re.sub("[, ]", "", values):
        found.append("x-a")
    return found


class Client:
    """Reads the answers of one connection to a server."""

    def __init__(self, port):
        self.socket, self.buffer = socket.create_connection(("127.0.0.1", port), 10), b""
        self.socket.settimeout(10)

    def answer(self, method):
        """(status, body); None at the end."""
        while True:
            while b"\r\n\r\n" not in self.buffer:
                try:
                    more = self.socket.recv(65536)
                except ConnectionError:
                    more = b""
                if not more:
                    return None
                self.buffer += more
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if status >= 200:
                break
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
        if method == "HEAD" or status in (204, 304):
            return status, b""
        chunked = re.search(rb"\r\ntransfer-encoding: *chunked", head, re.I)
        if chunked:
            while not self.buffer.endswith(b"0\r\n\r\n"):
                more = self.socket.recv(65536)
                if not more:
                    break
                self.buffer += more
            body, self.buffer = self.buffer, b""
            return status, body
        need = int(length[1]) if length else 1 << 30
        while len(self.buffer) < need:
            more = self.socket.recv(65536)
            if not more:
                break
            self.buffer += more
        body, self.buffer = self.buffer[:need], self.buffer[need:]
        return status, body


def ask(name, port, seen):
    """None when the server agrees, "refused" when it refuses, else how it disagrees."""
    want = understood(seen)
    client = Client(port)
    with client.socket:
        # gunicorn looks at what was pipelined only when more comes, and puma 5 takes all that came in one packet for
        # the body: they get the marker afterwards. (The gateway never sends a second request before an answer.)
        pipelined = name not in ("gunicorn", "puma")
        client.socket.sendall(seen.raw + (MARKER if pipelined else b""))
        try:
            first = client.answer(seen.method)
            if first is None:
                return "refused"
            if first[0] >= 400:
                second = client.answer("GET") if pipelined else None
                if second is not None and second[0] < 400 and json.loads(second[1])["host"] != "marker":
                    return f"after a refusal it saw {second}"
                return "refused"
            if seen.method == "HEAD" or (seen.target == "*" and not first[1]):
                found = []  # Go answers OPTIONS * by itself
            else:
                found = differs(want, json.loads(first[1]))
            if found:
                return f"{found}: {first[1]!r}"
            if not pipelined:
                try:
                    client.socket.sendall(MARKER)
                except ConnectionError:
                    return None
            second = client.answer("GET")
            if second is None:
                return None  # it closed: nothing can follow
            said = json.loads(second[1]) if second[0] == 200 else {}
            if (said.get("host"), said.get("length"), said.get("method")) != ("marker", 0, "GET"):
                return f"behind it: {second}"
        except socket.timeout:
            return "waits for more"
    return None


def test_differential(gateway, engine, servers):
    """0 disagreements between what came out of the gateway and what seven servers read from it."""
    rng = random.Random(f"stateway {engine}")
    inputs = [mutated(rng) for _ in range(COUNT)] + vectors()[::1 if COUNT > 600 else 7]
    forwarded, problems = {}, []
    with Recorder() as recorder:
        service = gateway({"apps": {"a": {"servers": [recorder.address]}}, "routes": [{"path": "/*", "app": "a"}]},
                          engine=engine, log_level="info")
        refused = 0
        for data in inputs:
            got = through(service.address, data)
            seen = recorder.take()
            answers = [int(s) for s in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", got) if s >= b"200"]
            fine = sum(1 for s in answers if s < 400)
            refused += not fine
            if fine != len(seen) and fine != 0:
                problems.append(f"{fine} answers of {len(seen)} requests: {data!r} {got[:500]!r}")
            for one in seen:
                key = re.sub(rb"\r\n(stateway-deadline): \d+", b"", one.raw, flags=re.I)
                forwarded.setdefault(key, (one, data))
        problems += [f"the gateway sent what has two meanings: {w}" for w in recorder.wrong]
    counts, lock = {}, threading.Lock()

    def compare(name, port):
        for one, data in forwarded.values():
            try:
                said = ask(name, port, one)
            except Exception as e:  # a server that dies is a finding, too
                said = f"{type(e).__name__}: {e}"
            with lock:
                what = "agrees" if said is None else "refused" if said == "refused" else "DISAGREES"
                counts.setdefault(name, {}).setdefault(what, 0)
                counts[name][what] += 1
                if what == "DISAGREES":
                    problems.append(f"{name}: {said}\n  sent on {one.raw!r}\n  came    {data!r}")
    threads = [threading.Thread(target=compare, args=item) for item in servers.items()]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    print(f"differential: {len(inputs)} requests, {refused} refused, {len(forwarded)} different ones went on; {counts}")
    assert len(forwarded) > COUNT / 10
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems[:25])
