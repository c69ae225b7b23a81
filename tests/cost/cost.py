"""What an exchange costs, counted and not timed: instructions, system calls, allocations.

The real gateway runs under callgrind (one worker, epoll), and gets requests strictly one after another on one
connection that stays open; client and origin run outside. A request that no route takes ends a section:
callgrind writes down what it has counted when our own answer is composed. Each kind of exchange has a
warm-up and then two sections of different length; what the longer one counted more, divided by what it
had more requests, is the price of one. Start-up, the marks and what a section costs once cancel out.

    cost.py                      measures and compares with cost.json
    cost.py --write REASON       measures and keeps the figures: REASON says why they changed
    cost.py --keep FOLDER        keeps callgrind's files for callgrind_annotate

Counted are the worker thread's user-space instructions, with the processor's larger instruction sets
switched off, so that memcpy and SHA-256 take the same way on every machine: a hash that takes 2000
instructions here is some 100 with the processor's own SHA instructions. What the store's thread does for an
update is not in it.
Standard library only. Needs valgrind.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
KEPT = HERE / "cost.json"
MARK = "sw_respond__own"  # the function whose call ends a section
WARM, SHORT, LONG = 150, 100, 500
TOLERANCE = 0.03
KINDS = {  # path of the request; every one is a GET with or without a cookie, but for the update
    "none": "/",
    "sticky": "/sticky/",
    "session read": "/session/",
    "session update": "/session/update",
}
ALLOCATIONS = {"malloc", "calloc", "realloc", "reallocarray", "posix_memalign", "aligned_alloc", "memalign", "mmap"}
SYSCALLS = {
    "send", "recv", "sendmsg", "recvmsg", "read", "write", "pread64", "pwrite64", "writev", "readv", "pwritev",
    "epoll_wait", "epoll_pwait2", "epoll_ctl", "accept4", "close", "socket", "connect", "fdatasync", "msync",
    "fallocate64", "syscall", "eventfd_write", "eventfd_read",
}
ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-AVX,-AVX_Fast_Unaligned_Load,-AVX512F,-AVX512VL,-ERMS,-FSRM,-BMI2",
    "OPENSSL_ia32cap": "~0x1000000000000000:0",  # no AVX; no AVX2, BMI, SHA
}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Profile:
    """What callgrind counted in one thread in one section."""

    def __init__(self, path):
        self.instructions, self.calls = 0, {}
        names, called = {}, None
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith(("fn=", "cfn=")):
                number, _, name = line.partition("=")[2].partition(" ")
                if name:
                    names[number] = name.split("'")[0]
                if line[0] == "c":
                    called = names[number]
            elif line.startswith("calls="):
                count = int(line[6:].split()[0])
                self.calls[called] = self.calls.get(called, 0) + count
            elif line.startswith("totals:"):
                self.instructions = int(line.split()[1])

    def count(self, wanted):
        return sum(n for name, n in self.calls.items() if name.split("@")[0].lstrip("_") in wanted)


def section(paths):
    """The figures of one: of the thread that was asked for the answer that ends it, the worker."""
    assert len(paths) == 1, f"a section in {len(paths)} files: {[p.name for p in paths]}"
    profile = Profile(paths[0])
    return {
        "instructions": profile.instructions,
        "system_calls": profile.count(SYSCALLS),
        "allocations": profile.count(ALLOCATIONS),
    }


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exchange(self, method, path, cookie=None):
        """Answers (status, head)."""
        lines = [f"{method} {path} HTTP/1.1", "Host: shop.example:8080", "User-Agent: wrk/4.1.0", "Accept: */*"]
        if cookie:
            lines.append(f"Cookie: {cookie}")
        if method == "POST":
            lines.append("Content-Length: 0")
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.socket.recv(65536)
            if not piece:
                raise SystemExit("cost: the gateway closed the connection")
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        missing = int(re.search(rb"(?i)content-length: (\d+)", head).group(1)) - len(body)
        while missing > 0:
            missing -= len(self.socket.recv(missing))
        return int(head.split()[1]), head


class Run:
    """A gateway under callgrind, its origin and its folder."""

    def __init__(self, build, folder):
        self.build, self.folder, self.procs, self.marks = build, folder, [], 0
        origin_port, self.port = free_port(), free_port()
        self.start([str(build / "bench" / "origin"), str(origin_port)], {})
        config = folder / "stateway.yaml"
        config.write_text(
            f"""listen: [ {{ address: "127.0.0.1:{self.port}" }} ]
admin: off
engine: epoll
workers: 1
store: "lmdb:{folder}/state"
keys: {{ file: "{folder}/keys.json" }}
log: {{ level: warn, access: off }}
timeouts: {{ exchange: 300s, response: 120s }}
apps: {{ origin: {{ servers: ["127.0.0.1:{origin_port}"] }} }}
routes:
  - {{ path: /, app: origin, state: none }}
  - {{ path: /sticky/*, app: origin, state: sticky }}
  - {{ path: /session/*, app: origin, state: session }}
"""
        )
        wrap = [
            shutil.which("valgrind"), "--tool=callgrind", "--separate-threads=yes", "--fair-sched=yes",
            f"--dump-before={MARK}", f"--callgrind-out-file={folder}/profile.%p",
        ]
        self.gateway = self.start(
            [str(build / "stateway"), "run", "-c", str(config)],
            {"LD_PRELOAD": str(build / "tests" / "cost" / "cost_wrap.so"), "COST_WRAP": "\n".join(wrap),
             "COST_BINARY": str(build / "stateway"), **ENVIRONMENT},
        )
        self.wait()

    def start(self, argv, more):
        with open(self.folder / "log", "ab") as log:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       env={**os.environ, **more})
        self.procs.append(process)
        return process

    def wait(self):
        end = time.monotonic() + 60
        while time.monotonic() < end and self.gateway.poll() is None:
            try:
                if Client(self.port).exchange("GET", "/")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise SystemExit("cost: the gateway does not start:\n" + (self.folder / "log").read_text()[-4000:])

    def stop(self):
        for process in reversed(self.procs):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()

    def mark(self, client):
        """Ends a section; answers its files."""
        before = set(self.folder.glob("profile.*"))
        assert client.exchange("GET", "/nowhere")[0] == 404
        return sorted(set(self.folder.glob("profile.*")) - before)

    def measure(self, kind):
        client, path = Client(self.port), KINDS[kind]
        method, cookie = ("POST" if kind == "session update" else "GET"), None
        if kind.startswith("session"):
            head = client.exchange("POST", "/session/update")[1]
            cookie = re.search(rb"(?i)set-cookie: ([^;\r]+)", head).group(1).decode()
        elif kind == "sticky":
            head = client.exchange("GET", path)[1]
            cookie = re.search(rb"(?i)set-cookie: ([^;\r]+)", head).group(1).decode()
        sections = []
        for count in (WARM, SHORT, LONG):
            for _ in range(count):
                status, _ = client.exchange(method, path, cookie)
                assert status == 200, f"{kind}: {status}"
            sections.append(self.mark(client))
        short, long = (section(paths) for paths in sections[1:])
        return {key: round((long[key] - short[key]) / (LONG - SHORT), 2) for key in short}


def toolchain(build):
    """What the figures depend on beside our code."""
    compiler = re.search(rb"(?:GCC: \([^)]*\)|[a-zA-Z ]*clang version) [\d.]+", (build / "stateway").read_bytes())
    return {
        "machine": os.uname().machine,
        "compiler": compiler.group().decode() if compiler else "unknown",
        "libc": os.confstr("CS_GNU_LIBC_VERSION"),
        "valgrind": subprocess.run(["valgrind", "--version"], capture_output=True, text=True).stdout.strip(),
    }


def measure(build, keep=None):
    """{kind: figures}."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="stateway-cost-"))
    try:
        run = None
        try:
            run = Run(build, folder)
            return {kind: run.measure(kind) for kind in KINDS}
        finally:
            if run is not None:
                run.stop()
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                for path in folder.glob("profile.*"):
                    shutil.copy(path, keep)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def load():
    return json.loads(KEPT.read_text()) if KEPT.exists() else {"reason": "", "toolchain": {}, "exchanges": {}}


def table(figures, kept):
    rows = [f"{'exchange':16} {'instructions':>12} {'kept':>8} {'beyond none':>12} {'system calls':>13} "
            f"{'allocations':>12}"]
    for kind, f in figures.items():
        was = kept.get(kind, {}).get("instructions", 0)
        beyond = f["instructions"] - figures["none"]["instructions"]
        rows.append(f"{kind:16} {f['instructions']:12.0f} {was:8.0f} {beyond:12.0f} {f['system_calls']:13.2f} "
                    f"{f['allocations']:12.2f}")
    return "\n".join(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / os.environ.get("STATEWAY_BUILD", "build"))
    parser.add_argument("--write", metavar="REASON", help="keep the figures; why did they change?")
    parser.add_argument("--keep", type=pathlib.Path, metavar="FOLDER", help="keep callgrind's files there")
    args = parser.parse_args()
    kept = load()["exchanges"]
    figures = measure(args.build, args.keep)
    print(table(figures, kept))
    if args.write:
        text = {"reason": args.write, "toolchain": toolchain(args.build), "exchanges": figures}
        KEPT.write_text(json.dumps(text, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
