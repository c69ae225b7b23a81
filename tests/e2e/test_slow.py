"""Slow clients, from slowhttptest: others are served meanwhile, the slow are dropped in time, memory stays small.

STATEWAY_SLOW_CONNECTIONS (200) and STATEWAY_SLOW_SECONDS (8): how many, for how long.
"""
import os
import re
import shutil
import subprocess
import time

import pytest

from harness import answer, wait_for
from origins.stage import Stage, memory, read_body

CONNECTIONS = int(os.environ.get("STATEWAY_SLOW_CONNECTIONS", "200"))
SECONDS = int(os.environ.get("STATEWAY_SLOW_SECONDS", "8"))
# The budget of resident memory for one slow connection: its records and a head or a piece of a body; or, while it
# does not read, 64 KiB of the answer and what was on its way when the app was stopped.
BYTES_EACH = {"headers": 32 * 1024, "body": 64 * 1024, "read": 256 * 1024}

pytestmark = pytest.mark.skipif(not shutil.which("slowhttptest"), reason="slowhttptest is not installed")

MODES = {
    # followup data every 3 s: later than the time of a head allows
    "headers": ["-H", "-i", "3", "-x", "24"],
    "body": ["-B", "-i", "3", "-s", "8192", "-x", "10"],
    "read": ["-X", "-w", "512", "-y", "1024", "-n", "3", "-z", "32", "-k", "1"],
}


def connections(service):
    """Of clients, open now."""
    text = service.admin("GET", "/metrics").body.decode()
    return int(re.search(r"^stateway_connections\{.*state=\"open\".*\} (\d+)", text, re.M)[1])


@pytest.mark.parametrize("mode", MODES)
def test_slow_clients(gateway, mode, engine):
    with Stage() as stage:
        stage.on(lambda asked, raw: (read_body(asked, raw), answer(200, b"l" * 1_000_000))[1], "/large")
        service = gateway({"apps": {"a": {"servers": [stage.address]}}, "routes": [{"path": "/*", "app": "a"}],
                           "timeouts": {"head": "2s", "body": "2s", "send": "2s", "idle": "2s"}},
                          engine=engine, log_level="info")
        pid = service.gateway_pid()
        for _ in range(20):
            service.get("/large")
        before, most, slowest, count, seen = memory(pid), 0, 0.0, 0, []
        run = subprocess.Popen(["slowhttptest", *MODES[mode], "-c", str(CONNECTIONS), "-r", str(CONNECTIONS), "-l", str(SECONDS),
                                "-p", "3", "-v", "0", "-u", service.url + "/large"], cwd=service.folder,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            first = time.monotonic()
            while run.poll() is None and time.monotonic() - first < SECONDS + 20:
                begun = time.monotonic()
                got = service.get("/normal", timeout=10)
                assert got.status == 200
                slowest, count = max(slowest, time.monotonic() - begun), count + 1
                seen.append((time.monotonic() - first, connections(service)))
                most = max(most, memory(pid) - before)
                time.sleep(0.05)
        finally:
            if run.poll() is None:
                run.kill()
            run.wait()
        seen.append((time.monotonic() - first, connections(service)))  # it ends as soon as it has none left
        peak = max(n for _, n in seen)
        full = next((at for at, n in seen if n >= CONNECTIONS * 0.7), None)
        gone = next((at for at, n in seen if full is not None and at > full and n <= CONNECTIONS * 0.05), None)
        print(f"{mode}: {peak} at once, full after {full}, gone after {gone}; {count} others, slowest {slowest:.2f} s; "
              f"at most {most / max(peak, 1) / 1024:.0f} KiB for each")
        assert count >= SECONDS and slowest < 3
        assert full is not None, "the slow clients never came"
        assert gone is not None and gone - full < 5.5, "they were not dropped in time"  # 2 s, and 2 s to take the answer
        assert most < CONNECTIONS * BYTES_EACH[mode], most / CONNECTIONS
        wait_for(lambda: connections(service) == 0, 10, "all connections closed")
