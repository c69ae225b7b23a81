"""The real binary for tests: a Gateway that is started, watched and ended; raw sockets; apps that misbehave.

    with Gateway({"apps": {"shop": {"command": [PYTHON, "app.py"]}},
                  "routes": [{"path": "/*", "app": "shop", "state": "session"}]}) as gateway:
        answer = gateway.get("/cart")
        assert answer.status == 200

A Gateway listens on free ports, keeps its store in a temporary folder, and asserts at its end: exit code
0, no process left behind, no report of a sanitizer and no failed assertion in what was logged.
STATEWAY_BUILD names the build folder (default: build-test, else build).
"""
import contextlib
import ctypes
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
COOKIE = b"STATEWAY_SUPERVISOR="
REPORTS = re.compile(
    r"ERROR: AddressSanitizer|ERROR: LeakSanitizer|WARNING: ThreadSanitizer|runtime error:|assertion failed")


def build_folder():
    named = os.environ.get("STATEWAY_BUILD")
    if named:
        return (ROOT / named).resolve()
    return next((ROOT / name for name in ("build-test", "build") if (ROOT / name / "stateway").exists()),
                ROOT / "build-test")


BUILD = build_folder()
BINARY = BUILD / "stateway"
SHOP = BUILD / "apps" / "shop"


def sanitized():
    """Whether the binary carries a sanitizer: then times mean little."""
    return b"__asan_init" in BINARY.read_bytes()


def has_uring():
    """Whether the kernel lets us have io_uring (many containers do not)."""
    libc = ctypes.CDLL(None, use_errno=True)
    params = ctypes.create_string_buffer(120)
    fd = libc.syscall(425, 4, params)  # io_uring_setup
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def store_kind():
    """The store of a gateway whose configuration names none: STATEWAY_TEST_STORE, else lmdb; or journal."""
    return os.environ.get("STATEWAY_TEST_STORE", "lmdb")


def engines():
    """The engines to test: STATEWAY_ENGINES, else both, less what the kernel refuses."""
    return os.environ.get("STATEWAY_ENGINES", "uring,epoll").split(",")


_ports = set()


def free_port():
    """A port below the ephemeral range and beside the one stateway takes for instances."""
    for _ in range(1000):
        port = random.randrange(30000, 32768)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _ports:
            _ports.add(port)
            return port
    raise AssertionError("no free port")


def wait_for(check, seconds=15, what=None):
    """The first true answer of check(); fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {seconds} s: {what or check}")
        time.sleep(0.01)


# ---- processes ----


def environment_of(pid):
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    return dict(entry.split(b"=", 1) for entry in raw.split(b"\0") if b"=" in entry)


def stat_of(pid):
    """(name, state, parent), or None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    name, rest = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()
    return name, rest[0], int(rest[1])


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def alive(pid):
    stat = stat_of(pid)
    return stat is not None and stat[1] not in "ZX"


def children_of(pid):
    return [p for p in all_pids() if (stat_of(p) or ("", "", 0))[2] == pid]


# ---- raw HTTP ----


class Answer:
    """A response as it came: status, reason, headers (a list of pairs), body, trailers, raw head."""

    def __init__(self, head, version, status, reason, headers):
        self.head, self.version, self.status, self.reason, self.headers = head, version, status, reason, headers
        self.body, self.trailers, self.complete = b"", [], False

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name, default=None):
        values = self.all(name)
        return values[0] if values else default

    def json(self):
        return json.loads(self.body)

    def cookies(self):
        """{name: value} of Set-Cookie."""
        return dict(value.split(";", 1)[0].split("=", 1) for value in self.all("set-cookie"))

    def __repr__(self):
        return f"<{self.status} {self.reason} {self.headers} {self.body[:200]!r}>"


def header_lines(block):
    lines = []
    for line in block.split(b"\r\n"):
        if line:
            name, _, value = line.partition(b":")
            lines.append((name.decode("latin-1"), value.strip().decode("latin-1")))
    return lines


class Raw:
    """A connection on which bytes are sent as they are given. address: (host, port), or the path of a Unix socket."""

    def __init__(self, address, timeout=20):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(address)
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Closes with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data, cut=None, pause=0.0):
        """All at once, or in pieces of `cut` bytes with a pause between them."""
        data = data.encode("latin-1") if isinstance(data, str) else data
        for at in range(0, len(data), cut or max(len(data), 1)):
            self.socket.sendall(data[at:at + (cut or len(data))])
            if pause:
                time.sleep(pause)
        return self

    def shutdown(self):
        """Says that no more will be sent; still reads."""
        self.socket.shutdown(socket.SHUT_WR)

    def _more(self):
        data = self.socket.recv(65536)
        self.buffer += data
        return data

    def _until(self, mark):
        while mark not in self.buffer:
            if not self._more():
                raise EOFError(f"closed after {self.buffer!r}")
        head, _, self.buffer = self.buffer.partition(mark)
        return head

    def _exactly(self, count):
        while len(self.buffer) < count:
            if not self._more():
                raise EOFError(f"closed, {count - len(self.buffer)} bytes missing")
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def read_head(self):
        head = self._until(b"\r\n\r\n")
        first, _, rest = head.partition(b"\r\n")
        version, status, *reason = first.decode("latin-1").split(" ", 2)
        return Answer(head, version, int(status), reason[0] if reason else "", header_lines(rest))

    def read_body(self, answer, method="GET"):
        """Reads the body that the head announces, however it is framed; checks the framing."""
        if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
            answer.complete = True
        elif "chunked" in (answer.get("transfer-encoding") or "").lower():
            while True:
                size = int(self._until(b"\r\n").split(b";")[0], 16)
                if size == 0:
                    break
                answer.body += self._exactly(size)
                assert self._exactly(2) == b"\r\n"
            trailers = b""
            while not trailers.endswith(b"\r\n\r\n") and trailers != b"\r\n":
                trailers += self._until(b"\r\n") + b"\r\n"
            answer.trailers, answer.complete = header_lines(trailers), True
        elif answer.get("content-length") is not None:
            answer.body = self._exactly(int(answer.get("content-length")))
            answer.complete = True
        else:
            answer.body, answer.complete = self.read_rest(), True
        return answer

    def read(self, method="GET", interim=False):
        """One response with its body; interim ones (1xx but 101) are skipped unless asked for."""
        while True:
            answer = self.read_head()
            if interim or answer.status >= 200 or answer.status == 101:
                return self.read_body(answer, method)

    def read_rest(self):
        """Everything until the other side closes."""
        while self._more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def is_closed(self, seconds=5):
        """Whether the other side closes, or resets, in time without sending more."""
        if self.buffer:
            return False
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(1)
        except socket.timeout:
            return False
        except ConnectionError:
            return True
        self.buffer += data
        return not data

    def request(self, method, path, headers=(), body=None, host="localhost"):
        """Sends a request on this connection and reads its response."""
        self.send(request_bytes(method, path, headers, body, host))
        return self.read(method)


def request_bytes(method, path, headers=(), body=None, host="localhost"):
    pairs = list(headers.items() if isinstance(headers, dict) else headers)
    lines = [f"{method} {path} HTTP/1.1"]
    if not any(name.lower() == "host" for name, _ in pairs):
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in pairs]
    body = body.encode() if isinstance(body, str) else body
    if body is not None and not any(name.lower() == "content-length" for name, _ in pairs):
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")


# ---- the gateway ----


class Gateway:
    """A running stateway.

    config   a dict (or YAML text) as in a file; what it does not say is filled in: free ports, a store in
             the temporary folder (store_kind), two workers, no access log, debug log.
    args     instead of a configuration: the arguments behind `stateway`.
    ready    wait until /readyz says yes (else only until the process is there).
    """

    def __init__(self, config=None, args=None, engine=None, ready=True, env=None, folder=None, cwd=None,
                 log_level="debug", timeout=30):
        assert BINARY.exists(), f"{BINARY} is not built; script/bootstrap --test"
        self._own_folder = folder is None
        self.folder = Path(folder or tempfile.mkdtemp(prefix="stateway-e2e-"))
        self.exit_code = self.config = None
        if args is None:
            self._fill(yaml.safe_load(config) if isinstance(config, str) else config, engine, log_level)
            self.file = self.folder / "stateway.yaml"
            self.file.write_text(yaml.safe_dump(self.config, sort_keys=False))
            args = ["run", "-c", str(self.file)]
        self.out, self.err = self.folder / "out.log", self.folder / "err.log"
        self.args = [str(a) for a in args]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STATEWAY_")}
        environment.update(env or {})
        with open(self.out, "ab") as out, open(self.err, "ab") as err:
            self.process = subprocess.Popen([str(BINARY)] + self.args, stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=err, env=environment, cwd=cwd or self.folder)
        self.pid = self.process.pid
        self.cookie = None
        try:
            if ready:
                self.wait_ready(timeout)
        except BaseException:
            self.discard()
            raise

    def _fill(self, config, engine, log_level):
        self.config = config = dict(config)
        config.setdefault("listen", [{"address": f"127.0.0.1:{free_port()}"}])
        config.setdefault("admin", {"address": f"127.0.0.1:{free_port()}"})
        config.setdefault("store", f"{store_kind()}:{self.folder}/state")
        config.setdefault("workers", 2)
        log = dict(config.get("log") or {})
        log.setdefault("level", log_level)
        log.setdefault("access", "off")
        config["log"] = log
        if engine is not None:
            config["engine"] = engine
        config.setdefault("keys", {"file": f"{self.folder}/keys.json"})

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            print(f"--- stateway {' '.join(self.args)}\n{self.log()[-20000:]}", file=sys.stderr)
            self.discard()
        else:
            self.close()

    # addresses

    @staticmethod
    def _address(text):
        if text.startswith("unix:"):
            return text[5:]
        host, _, port = text.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def address(self):
        """Of the first listener: for Raw."""
        return self._address(self.config["listen"][0]["address"])

    @property
    def url(self):
        return "http://" + self.config["listen"][0]["address"]

    @property
    def admin_address(self):
        return self._address(self.config["admin"]["address"])

    @property
    def admin_url(self):
        return "http://" + self.config["admin"]["address"]

    # requests

    def connect(self, **options):
        return Raw(self.address, **options)

    def request(self, method, path, headers=(), body=None, cookies=None, **options):
        """On a connection of its own. cookies: a dict that is sent, and updated by the answer."""
        pairs = list(headers.items() if isinstance(headers, dict) else headers)
        if cookies:
            pairs.append(("Cookie", "; ".join(f"{k}={v}" for k, v in cookies.items())))
        with self.connect(**options) as raw:
            answer = raw.request(method, path, pairs + [("Connection", "close")], body)
        if cookies is not None:
            cookies.update(answer.cookies())
        return answer

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, body=b"", **options):
        return self.request("POST", path, body=body, **options)

    def admin(self, method, path, headers=()):
        token = (self.config["admin"] or {}).get("token")
        pairs = list(headers) + [("Stateway-Admin", "1"), ("Connection", "close")]
        if token:
            pairs.append(("Authorization", f"Bearer {token}"))
        with Raw(self.admin_address) as raw:
            return raw.request(method, path, pairs, b"" if method == "POST" else None)

    def apps(self):
        """{"shop": [instance, ...]} as the admin API tells it."""
        return {app["name"]: app["instances"] for app in self.admin("GET", "/v1/apps").json()["apps"]}

    # processes and logs

    def log(self):
        return "".join(path.read_text(errors="replace") for path in (self.out, self.err) if path.exists())

    def wait_log(self, text, seconds=15):
        wait_for(lambda: text in self.log(), seconds, f"{text!r} in the log:\n{self.log()[-5000:]}")

    def wait_ready(self, seconds=30):
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"stateway ended with {self.process.returncode}:\n{self.log()[-20000:]}")
            if self.config is None or self.config["admin"] == "off":
                return "supervisor: ready" in self.log()
            try:
                return self.admin("GET", "/readyz").status == 200
            except (OSError, EOFError):
                return False
        try:
            wait_for(ready, seconds)
        except AssertionError as e:
            raise AssertionError(f"not ready: {e}\n{self.log()[-20000:]}") from None
        self.family()

    def gateway_pid(self):
        """The gateway process; None while there is none."""
        for pid in children_of(self.pid):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[1:2] == [b"gateway"] and alive(pid):
                return pid
        return None

    def guard_pid(self):
        return next((p for p in children_of(self.pid) if (stat_of(p) or [""])[0] == "stateway-guard"), None)

    def instances(self):
        """{"shop/2": pid} of the processes that run."""
        found = {}
        for pid in children_of(self.pid):
            name = environment_of(pid).get(b"STATEWAY_INSTANCE")
            if name and alive(pid):
                found[name.decode()] = pid
        return found

    def family(self):
        """Every process that runs because of this supervisor, however far it went."""
        if self.cookie is None:
            gateway = self.gateway_pid()
            self.cookie = environment_of(gateway).get(COOKIE[:-1]) if gateway else None
        if self.cookie is None:
            return []
        return [pid for pid in all_pids() if environment_of(pid).get(COOKIE[:-1]) == self.cookie]

    def kill_gateway(self, signo=signal.SIGKILL):
        """Kills the gateway process; answers when another one is ready, with the seconds it took."""
        old = self.gateway_pid()
        started = time.monotonic()
        os.kill(old, signo)
        wait_for(lambda: self.gateway_pid() not in (None, old))
        self.wait_ready()
        return time.monotonic() - started

    # the end

    def wait(self, seconds=40):
        try:
            self.exit_code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"stateway does not end:\n{self.log()[-20000:]}") from None
        return self.exit_code

    def stop(self, signo=signal.SIGTERM, seconds=40):
        """Ends it; answers its exit code."""
        if self.process.poll() is None:
            self.family()
            self.process.send_signal(signo)
        return self.wait(seconds)

    def check(self, code=0):
        """What must hold at every end."""
        assert self.exit_code == code, f"exit code {self.exit_code}, not {code}:\n{self.log()[-20000:]}"
        report = REPORTS.search(self.log())
        assert not report, f"in the log: {self.log()[max(report.start() - 2000, 0):report.start() + 8000]}"
        assert self.nobody_left(), f"left behind: {[(p, stat_of(p)) for p in self.family()]}"

    def nobody_left(self, seconds=5):
        try:
            return wait_for(lambda: not self.family(), seconds)
        except AssertionError:
            return False

    def discard(self):
        """Ends it hard, without any check: the test failed already."""
        with contextlib.suppress(Exception):
            self.family()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        with contextlib.suppress(Exception):
            self.nobody_left()
        self._clean()

    def close(self):
        """Stops it and checks; a test that ended it by itself calls check() with the code it expects."""
        try:
            if self.exit_code is None:  # else the test ended it, and looked at how it ended
                if self.process.poll() is None:
                    self.stop()
                self.wait()
                self.check()
        except BaseException:
            self.discard()
            raise
        self._clean()

    def _clean(self):
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def stateway(*args, timeout=30, env=None, cwd=None, input=None):
    """Runs a command to its end: a subprocess.CompletedProcess with text."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STATEWAY_")}
    environment.update(env or {})
    return subprocess.run([str(BINARY)] + [str(a) for a in args], capture_output=True, text=True,
                          timeout=timeout, env=environment, cwd=cwd, input=input, check=False)


# ---- apps that do as they are told ----


class Asked:
    """A request as an Origin got it."""

    def __init__(self, method, target, headers, body, raw):
        self.method, self.target, self.headers, self.body, self.raw = method, target, headers, body, raw

    def get(self, name, default=None):
        return next((v for k, v in self.headers if k.lower() == name.lower()), default)

    def all(self, name):
        return [v for k, v in self.headers if k.lower() == name.lower()]


class Origin:
    """A server whose answers are bytes.

        with Origin(lambda asked, raw: answer(200, b"hello")) as origin:
            Gateway({"apps": {"a": {"servers": [origin.address]}}, ...})

    The function gets the request and the connection (a Raw). It returns bytes to send; or None: it did all
    by itself. The connection is kept unless it was closed. `asked` keeps every request, but not what the
    gateway asks by itself (health checks, the probe of the header limit), unless sees_checks is set.
    """

    sees_checks = False

    def __init__(self, respond, path=None, read_body=True):
        self.respond, self.read_body, self.asked, self.connections = respond, read_body, [], 0
        if path is None:
            self.socket = socket.socket()
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(("127.0.0.1", 0))
            self.port = self.socket.getsockname()[1]
            self.address = f"127.0.0.1:{self.port}"
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.bind(str(path))
            self.address = f"unix:{path}"
        self.socket.listen(128)
        self.open = set()
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.drop()

    def drop(self):
        """Closes every connection, as a crash would."""
        with self.lock:
            connections, self.open = self.open, set()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with self.lock:
                self.open.add(connection)
                self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        raw = Raw.__new__(Raw)
        raw.socket, raw.buffer = connection, b""
        connection.settimeout(60)
        try:
            while True:
                head = raw._until(b"\r\n\r\n")
                first, _, rest = head.partition(b"\r\n")
                method, target, _ = first.decode("latin-1").split(" ", 2)
                asked = Asked(method, target, header_lines(rest), b"", head)
                if self.read_body:
                    framed = Answer(head, "", 200, "", asked.headers)
                    if framed.get("content-length") or framed.get("transfer-encoding"):
                        asked.body = raw.read_body(framed).body
                if not self.sees_checks and asked.get("user-agent") == "stateway-health":
                    raw.send(answer(200, b"", [("Connection", "close")]))
                    continue
                with self.lock:
                    self.asked.append(asked)
                data = self.respond(asked, raw)
                if data is not None:
                    raw.send(data)
        except (OSError, EOFError, ValueError):
            pass
        finally:
            with self.lock:
                self.open.discard(connection)
            connection.close()


# An app in Python: what it is asked for stands in the path.
APP = r'''
import http.server, os, signal, socket, subprocess, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        what, _, rest = self.path.strip("/").partition("/")
        body = str(os.getpid())
        if what == "slow":
            time.sleep(float(rest))
        elif what == "print":
            print(rest, flush=True)
        elif what == "flood":
            for _ in range(int(rest)):
                sys.stdout.write("x" * 999 + "\n")
            sys.stdout.flush()
        elif what == "environment":
            body = os.environ.get(rest, "-")
        elif what == "daemon":
            body = subprocess.run(["setsid", "-f", "sh", "-c", "echo $$; exec >/dev/null 2>&1 </dev/null; exec sleep 1000"],
                                  stdout=subprocess.PIPE, text=True).stdout.strip()
        elif what == "child":
            body = str(subprocess.Popen(["sleep", "1000"]).pid)
        data = body.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    do_POST = do_GET
    def log_message(self, *_): pass
class Unix(http.server.ThreadingHTTPServer):
    address_family = socket.AF_UNIX
    def server_bind(self):
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "unix", 0
    def get_request(self):
        return self.socket.accept()[0], ("unix", 0)
if "--deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "--socket" in sys.argv:
    Unix(sys.argv[sys.argv.index("--socket") + 1], Handler).serve_forever()
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
'''


def app_command(*args):
    """A command for the app above; stateless but for its process."""
    return [PYTHON, "-c", APP.replace("$", "$$"), *args]


def answer(status=200, body=b"", headers=(), reason="OK"):
    """The bytes of an ordinary response."""
    body = body.encode() if isinstance(body, str) else body
    pairs = list(headers.items() if isinstance(headers, dict) else headers)
    lines = [f"HTTP/1.1 {status} {reason}"] + [f"{k}: {v}" for k, v in pairs] + [f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body
