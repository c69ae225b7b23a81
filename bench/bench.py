"""Measures whole proxies beside each other: CPU per request, requests/s, latency.

Every proxy stands before the same origin, all run at once, and the load goes to one after another in
short slices, round by round, so that a machine whose speed drifts does so for all of them. CPU per
request is user + system time of all processes of a proxy, divided by the requests its clients saw
answered. Ratios are medians of paired rounds. Standard library only; needs wrk, haproxy, nginx.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SESSIONS = 4096  # that are updated in turns: more than clients, so that they seldom meet
STORE_THREAD = "store"


def children(pid):
    """pid and all its descendants."""
    found, queue = [], [pid]
    while queue:
        at = queue.pop()
        found.append(at)
        for task in pathlib.Path(f"/proc/{at}/task").glob("*/children"):
            try:
                queue += [int(word) for word in task.read_text().split()]
            except OSError:
                pass
    return found


def cpu_ns(pid, skip, thread=None):
    """On-CPU time of a process tree in nanoseconds; `skip` are commands that are not the proxy.
    thread: only threads of that name (the store's committer)."""
    total = 0
    for at in children(pid):
        try:
            if pathlib.Path(f"/proc/{at}/comm").read_text().strip() in skip:
                continue
            for task in pathlib.Path(f"/proc/{at}/task").iterdir():
                if thread and (task / "comm").read_text().strip() != thread:
                    continue
                total += int((task / "schedstat").read_text().split()[0])
        except OSError:
            pass
    return total


def wait_for(port, seconds=15):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), 0.2):
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"bench: nothing listens on port {port}")


def wait_for_200(port, path, seconds=15):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as s:
                s.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
                if b" 200 " in s.recv(4096):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"bench: no answer from port {port}")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Bench:
    def __init__(self, args):
        self.args = args
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="stateway-bench-"))
        self.procs = []
        self.origin_port = free_port()
        self.variants = {}

    def start(self, argv, cpu):
        log = open(self.dir / f"log-{len(self.procs)}", "w")
        if os.cpu_count() > 1:
            argv = ["taskset", "-c", str(cpu), *argv]
        p = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        self.procs.append(p)
        return p

    def stop(self):
        for p in reversed(self.procs):
            if p.poll() is None:
                p.send_signal(signal.SIGTERM)
        for p in reversed(self.procs):
            try:
                p.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(p.pid, signal.SIGKILL)
        if not os.environ.get("BENCH_KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)

    def stateway(self, name, engine):
        port = free_port()
        conf = self.dir / f"{name}.yaml"
        conf.write_text(
            f"""listen: [ {{ address: "127.0.0.1:{port}" }} ]
admin: off
engine: {engine}
workers: 1
store: "lmdb:{self.dir}/{name}-state"
log: {{ level: warn, access: {self.args.access_log} }}
apps: {{ origin: {{ servers: ["127.0.0.1:{self.origin_port}"] }} }}
routes:
  - {{ path: /*, app: origin, state: none }}
  - {{ path: /sticky/*, app: origin, state: sticky }}
  - {{ path: /session/*, app: origin, state: session }}
"""
        )
        p = self.start([str(self.args.stateway), "run", "-c", str(conf)], 0)
        wait_for_200(port, "/")
        sessions = [self.cookie(port, "/session/update") for _ in range(SESSIONS)]
        script = self.dir / f"{name}.lua"
        script.write_text(
            "local cookies = {" + ",".join(f'"{c}"' for c in sessions) + "}\n"
            "local at = 0\n"
            "function request()\n"
            "  at = at % #cookies + 1\n"
            '  return wrk.format("POST", nil, {["Cookie"] = cookies[at], ["Content-Length"] = "0"})\n'
            "end\n"
        )
        for place, path, how in (
            ("none", "/", []),
            ("sticky", "/sticky/", ["-H", "Cookie: " + self.cookie(port, "/sticky/")]),
            ("session read", "/session/", ["-H", "Cookie: " + sessions[0]]),
            ("session update", "/session/update", ["-s", str(script)]),
            ("session create", "/session/update", []),
        ):
            self.variants[f"{name} {place}"] = (p, port, path, how)

    def cookie(self, port, path):
        with socket.create_connection(("127.0.0.1", port), 2) as s:
            s.sendall(f"POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += s.recv(4096)
        return re.search(rb"(?i)set-cookie: ([^;\r]+)", head).group(1).decode()

    def haproxy(self):
        port = free_port()
        conf = self.dir / "haproxy.cfg"
        conf.write_text(
            f"""global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  server s 127.0.0.1:{self.origin_port}
"""
        )
        p = self.start(["haproxy", "-db", "-f", str(conf)], 0)
        wait_for(port)
        self.variants["haproxy"] = (p, port, "/", [])

    def nginx(self):
        port = free_port()
        conf = self.dir / "nginx.conf"
        conf.write_text(
            f"""worker_processes 1;
daemon off;
pid {self.dir}/nginx.pid;
error_log {self.dir}/nginx.err;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {self.dir}/t1; proxy_temp_path {self.dir}/t2;
  fastcgi_temp_path {self.dir}/t3; uwsgi_temp_path {self.dir}/t4; scgi_temp_path {self.dir}/t5;
  upstream o {{ server 127.0.0.1:{self.origin_port}; keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://o; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""
        )
        p = self.start(["nginx", "-e", str(self.dir / "nginx.err"), "-c", str(conf)], 0)
        wait_for(port)
        self.variants["nginx"] = (p, port, "/", [])

    def slice(self, variant, connections, seconds):
        p, port, path, how = self.variants[variant]
        argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", *how]
        if os.cpu_count() > 1:
            argv = ["taskset", "-c", "1", *argv]
        before, put = cpu_ns(p.pid, {"origin"}), cpu_ns(p.pid, {"origin"}, STORE_THREAD)
        out = subprocess.run(
            [*argv, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True
        ).stdout
        after = cpu_ns(p.pid, {"origin"})
        put = cpu_ns(p.pid, {"origin"}, STORE_THREAD) - put
        requests = int(re.search(r"(\d+) requests in", out).group(1))
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        sock = re.search(r"Socket errors: (.*)", out)

        def ms(label):
            value, unit = re.search(rf"{label}%\s+([\d.]+)(us|ms|s)", out).groups()
            return float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]

        return {
            "requests": requests,
            "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)),
            "cpu_us": (after - before) / 1000 / max(requests, 1),
            "put_us": put / 1000 / max(requests, 1),
            "p50_ms": ms("50"),
            "p99_ms": ms("99"),
            "bad": int(bad.group(1)) if bad else 0,
            "socket_errors": sock.group(1) if sock else "",
        }


def version(argv):
    try:
        out = subprocess.run(argv, capture_output=True, text=True)
        return (out.stdout + out.stderr).strip().splitlines()[0]
    except (OSError, IndexError):
        return "missing"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stateway", type=pathlib.Path, default=ROOT / "build" / "stateway")
    parser.add_argument("--origin", type=pathlib.Path, default=ROOT / "build" / "bench" / "origin")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="length of one slice")
    parser.add_argument("--connections", default="1,64,512")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 s")
    parser.add_argument("--access-log", default="off", help="off, stdout or a path")
    parser.add_argument("--write", type=pathlib.Path, help="folder for result.json and README.md")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds = 2, 1

    bench = Bench(args)
    rows = {}
    try:
        bench.start([str(args.origin), str(bench.origin_port)], 1)
        wait_for(bench.origin_port)
        for engine in ("uring", "epoll"):
            bench.stateway(f"stateway {engine}", engine)
        if shutil.which("haproxy"):
            bench.haproxy()
        if shutil.which("nginx"):
            bench.nginx()
        for connections in [int(word) for word in args.connections.split(",")]:
            for name in bench.variants:  # a warm-up that is not counted
                bench.slice(name, connections, 1)
            for _ in range(args.rounds):
                for name in bench.variants:
                    row = bench.slice(name, connections, args.seconds)
                    rows.setdefault((connections, name), []).append(row)
                    print(".", end="", flush=True, file=sys.stderr)
        print(file=sys.stderr)
    finally:
        bench.stop()

    lines = [
        "| connections | proxy | CPU us/request (min-max) | of it the store's put | to `none` | to haproxy"
        " | to nginx | requests/s | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    result = []
    failed = False
    for (connections, name), slices in rows.items():
        def paired(other):
            base = rows.get((connections, other))
            if not base:
                return "-"
            return f"{statistics.median(a['cpu_us'] / b['cpu_us'] for a, b in zip(slices, base)):.2f}"

        def mid(key):
            return statistics.median(s[key] for s in slices)

        own = " ".join(name.split()[:2]) + " none"
        put = f"{mid('put_us'):.1f}" if mid("put_us") > 0.05 else "-"
        low, high = min(s["cpu_us"] for s in slices), max(s["cpu_us"] for s in slices)
        lines.append(
            f"| {connections} | {name} | {mid('cpu_us'):.1f} ({low:.1f}-{high:.1f}) | {put} | {paired(own)}"
            f" | {paired('haproxy')} | {paired('nginx')} | {mid('rps'):,.0f} | {mid('p50_ms'):.2f} | {mid('p99_ms'):.2f} |"
        )
        result.append({"connections": connections, "proxy": name, "slices": slices})
        if any(s["bad"] or s["socket_errors"] for s in slices):
            failed = True
            print(f"bench: {name} at {connections} connections: answers other than 2xx, or socket errors")
    table = "\n".join(lines)
    machine = {
        "date": datetime.date.today().isoformat(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "stateway": version([str(args.stateway), "version"]),
        "haproxy": version(["haproxy", "-v"]),
        "nginx": version(["nginx", "-v"]),
        "wrk": version(["wrk", "-v"]),
        "rounds": args.rounds,
        "seconds": args.seconds,
        "access_log": args.access_log,
    }
    print(table)
    if args.write:
        args.write.mkdir(parents=True, exist_ok=True)
        (args.write / "result.json").write_text(json.dumps({"machine": machine, "rows": result}, indent=1))
        (args.write / "table.md").write_text(
            table + "\n\n" + "\n".join(f"* {k}: {v}" for k, v in machine.items()) + "\n"
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
