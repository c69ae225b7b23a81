"""What is measured: the same counter behind stateway, and with the session layers people use today.

A Subject is started in a folder of its own on free ports, makes the sessions of all keys, and says how a
request of a client for a key looks and what a key counts to. Each ends all it started.
"""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "e2e"))

import harness  # noqa: E402
from harness import Raw, free_port, wait_for  # noqa: E402


class CannotRun(Exception):
    """What is missing, for people."""


def program(*names):
    """The path of the first one that is installed."""
    for name in names:
        found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
        if found:
            return found
    raise CannotRun(f"{names[0]} is not installed")


def version_of(*command):
    """The first version number that a program tells of itself."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+[.\d]*", done.stdout + done.stderr)
    return found.group() if found else "?"


class Subject:
    """name: the row of the table. note: what a reader should know about it. promised: that it loses nothing."""

    promised = False

    def __init__(self, name, note=""):
        self.name, self.note, self.processes = name, note, []
        self.folder = self.port = None
        self.cookies = []

    def versions(self):
        return {}

    def start(self, folder, keys):
        """Runs it and makes the sessions of `keys` keys; CannotRun tells what is missing."""
        self.folder, self.port = Path(folder), free_port()
        self.run()
        wait_for(lambda: self.ask("GET", 0) is not None, 30, f"{self.name} answers")
        self.login(keys)

    def run(self):
        raise NotImplementedError

    def spawn(self, command, env=None):
        """A process in a group of its own, so that its children end with it."""
        with open(self.folder / f"{len(self.processes)}.log", "wb") as log:
            self.processes.append(subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env={**os.environ, **(env or {})}, start_new_session=True))

    def login(self, keys):
        """One visitor a key; all clients use their cookies."""
        for _ in range(keys):
            got = self.raw("POST", "/")
            assert got.status == 200, got
            self.cookies.append("; ".join(f"{k}={v}" for k, v in got.cookies().items()))
            assert self.cookies[-1], got

    def raw(self, method, target, headers=()):
        with Raw(("127.0.0.1", self.port), timeout=60) as raw:
            return raw.request(method, target, [*headers, ("Connection", "close")], b"" if method == "POST" else None)

    def target(self, key, client=None):
        del key, client
        return "/"

    def headers(self, key):
        return [("Cookie", self.cookies[key])] if self.cookies else []

    def request(self, client, key):
        """The bytes that add one."""
        return harness.request_bytes("POST", self.target(key, client), self.headers(key), b"")

    def ask(self, method, key, slow_ms=None):
        """One answer on a connection of its own; None while there is none."""
        target = self.target(key)
        if slow_ms is not None:
            target += f"{'&' if '?' in target else '?'}slow={slow_ms}"
        try:
            got = self.raw(method, target, self.headers(key))
        except (OSError, EOFError):
            return None
        return got if got.status == 200 else None

    def count(self, key):
        return json.loads(self.ask("GET", key).body)["n"]

    def figures(self):
        """What only this one can tell, after its load."""
        return {}

    def stop(self):
        for process in reversed(self.processes):
            try:
                os.killpg(process.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


class Stateway(Subject):
    """Two instances of counter.mjs; the key stands in the path."""

    def __init__(self, name, concurrency, note="", replay="idempotent", member=False, **config):
        super().__init__(name, note)
        self.concurrency, self.replay, self.member, self.config = concurrency, replay, member, config
        self.promised = concurrency != "last"
        self.gateway = None

    def versions(self):
        return {"stateway": version_of(harness.BINARY, "version"), "node": version_of(program("node"), "--version")}

    def run(self):
        self.gateway = harness.Gateway({
            "apps": {"counter": {"command": [program("node"), str(HERE / "counter.mjs")], "replicas": 2}},
            "listen": [{"address": f"127.0.0.1:{self.port}"}],
            "routes": [{"path": "/k/{name}", "app": "counter", "state": "session", "replay": self.replay,
                        # more clients than the queue usually admits; nothing else differs from the defaults
                        "session": {"key": "path.name", "concurrency": self.concurrency,
                                    "queue": {"length": 256, "wait": "30s"}}}],
            **self.config}, folder=self.folder, log_level="info")

    def login(self, keys):
        pass

    def target(self, key, client=None):
        return f"/k/{key}" + (f"?member=c{client}" if self.member and client is not None else "")

    def count(self, key):
        return sum(json.loads(self.ask("GET", key).body).values())

    def figures(self):
        metrics = self.gateway.admin("GET", "/metrics").body.decode()
        return {"run_again": sum(int(float(line.split()[-1])) for line in metrics.splitlines()
                                 if line.startswith("stateway_reruns"))}

    def stop(self):
        if self.gateway is not None:
            self.gateway.close()


class Express(Subject):
    """Two processes of express-session before one Redis. The packages come from npm."""

    def versions(self):
        packages = Path(self.folder / "node_modules")
        return {"node": version_of(program("node"), "--version"),
                "redis-server": version_of(program("redis-server"), "--version"),
                **{f"npm {name}": json.loads((packages / name / "package.json").read_text())["version"]
                   for name in ("express", "express-session", "connect-redis", "redis")}}

    def run(self):
        npm, node, redis = program("npm"), program("node"), program("redis-server")
        for name in ("package.json", "counter.mjs"):
            shutil.copy(HERE / "express" / name, self.folder)
        done = subprocess.run([npm, "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=self.folder,
                              capture_output=True, text=True, timeout=180, check=False)
        if done.returncode != 0:
            raise CannotRun(f"npm install failed: {done.stderr.strip()[-200:]}")
        port = free_port()
        self.spawn([redis, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", self.folder])
        wait_for(lambda: listens(port), what="redis-server")
        self.spawn([node, "counter.mjs"], {"PORT": str(self.port), "REDIS_PORT": str(port)})


def listens(port):
    try:
        Raw(("127.0.0.1", port)).close()
        return True
    except OSError:
        return False


class Php(Subject):
    """PHP's own sessions. handler: files (they lock), or redis (the extension: locks only when told to)."""

    WORKERS = 16

    def __init__(self, name, handler, locking=None, note=""):
        super().__init__(name, note)
        self.handler, self.locking, self.server = handler, locking, None

    def versions(self):
        versions = {"php": version_of(program("php"), "--version")}
        if self.handler == "redis":
            versions["redis-server"] = version_of(program("redis-server"), "--version")
            versions["php redis extension"] = version_of(program("php"), "-r", "echo phpversion('redis');")
        if self.server != "php -S":
            versions["nginx"] = version_of(program("nginx"), "-v")
        return versions

    def settings(self):
        settings = {"session.use_strict_mode": "1", "session.gc_probability": "0"}
        if self.handler == "files":
            (self.folder / "sessions").mkdir(mode=0o777)
            (self.folder / "sessions").chmod(0o777)
            return {**settings, "session.save_handler": "files", "session.save_path": str(self.folder / "sessions")}
        modules = subprocess.run([program("php"), "-m"], capture_output=True, text=True, check=False).stdout
        if "redis" not in modules.split():
            raise CannotRun("PHP has no redis extension (php-redis)")
        port = free_port()
        self.spawn([program("redis-server"), "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", self.folder])
        wait_for(lambda: listens(port), what="redis-server")
        settings.update({"session.save_handler": "redis", "session.save_path": f"tcp://127.0.0.1:{port}"})
        if self.locking:
            # the extension's defaults give up after 100 x 20 ms, and then go on without the lock
            settings.update({"redis.session.locking_enabled": "1", "redis.session.lock_retries": "-1",
                             "redis.session.lock_wait_time": "20000"})
        return settings

    def run(self):
        program("php")
        settings = self.settings()
        self.folder.chmod(0o755)  # the workers of a root's php-fpm are somebody else
        shutil.copy(HERE / "php" / "counter.php", self.folder)
        try:
            self.run_fpm(program("php-fpm8.2", "php-fpm"), program("nginx"), settings)
        except CannotRun:
            self.server = "php -S"
            flags = [word for k, v in settings.items() for word in ("-d", f"{k}={v}")]
            self.spawn([program("php"), "-q", *flags, "-S", f"127.0.0.1:{self.port}", self.folder / "counter.php"],
                       {"PHP_CLI_SERVER_WORKERS": str(self.WORKERS)})

    def run_fpm(self, fpm, nginx, settings):
        self.server = "php-fpm and nginx"
        root = os.geteuid() == 0
        values = "\n".join(f"php_admin_value[{k}] = {v}" for k, v in settings.items())
        (self.folder / "fpm.conf").write_text(f"""[global]
pid = {self.folder}/fpm.pid
error_log = {self.folder}/fpm.log
daemonize = no
[www]
{"user = www-data" if root else ""}
listen = {self.folder}/fpm.sock
listen.mode = 0666
listen.backlog = 1024
pm = static
pm.max_children = {self.WORKERS}
{values}
""")
        (self.folder / "nginx.conf").write_text(f"""{"user www-data;" if root else ""}
daemon off;
worker_processes 2;
pid {self.folder}/nginx.pid;
error_log {self.folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {self.folder}/body;
    fastcgi_temp_path {self.folder}/fastcgi;
    proxy_temp_path {self.folder}/proxy;
    scgi_temp_path {self.folder}/scgi;
    uwsgi_temp_path {self.folder}/uwsgi;
    keepalive_requests 1000000;
    server {{
        listen 127.0.0.1:{self.port};
        location / {{
            fastcgi_pass unix:{self.folder}/fpm.sock;
            fastcgi_read_timeout 120s;
            fastcgi_param SCRIPT_FILENAME {self.folder}/counter.php;
            fastcgi_param QUERY_STRING $query_string;
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_param CONTENT_LENGTH $content_length;
            fastcgi_param HTTP_COOKIE $http_cookie;
        }}
    }}
}}
""")
        self.spawn([fpm, "-R", "-y", self.folder / "fpm.conf"])
        wait_for(lambda: (self.folder / "fpm.sock").exists(), what="php-fpm")
        self.spawn([nginx, "-p", self.folder, "-c", self.folder / "nginx.conf"])


def subjects():
    """The rows of the table, in its order."""
    return [
        Stateway("stateway, `serial`", "serial",
                 "one writer at a time a key; each update on the disk before its answer"),
        Stateway("stateway, `merge`", "merge", "each client patches a member of its own", member=True),
        Stateway("stateway, `cas` and `replay: safe`", "cas", "a conflict runs the request again", replay="safe"),
        Stateway("stateway, `last`", "last", "for those who want it: the last writer wins, as below"),
        Stateway("stateway, `serial`, `sync: everysec`", "serial",
                 "durable within a second, like the rows below at best", sync="everysec"),
        Express("express-session, connect-redis", "two processes; Redis in memory only"),
        Php("PHP, session files", "files", note=f"{Php.WORKERS} workers; the session is locked while its request runs"),
        Php("PHP, redis extension", "redis", note=f"{Php.WORKERS} workers; Redis in memory only; no lock, its default"),
        Php("PHP, redis extension, locking", "redis", locking=True,
            note=f"{Php.WORKERS} workers; Redis in memory only; a lock that is asked for every 20 ms"),
    ]
