"""The scripts in vtc/, played by Debian's varnishtest on both sides of the gateway.

${gateway} is where clients connect, ${origin} where the server s1 listens. Between gateway and s1 stands a relay,
since s1 is there only while its script runs, and must not see the gateway's health checks.
"""
import contextlib
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from harness import free_port
from origins.stage import Services

SCRIPTS = sorted((Path(__file__).parent / "vtc").glob("*.vtc"))

pytestmark = pytest.mark.skipif(not shutil.which("varnishtest"), reason="varnishtest is not installed")


class Relay:
    """Connects to the port when the first byte comes; then bytes and half-closes, both ways."""

    def __init__(self, port):
        self.port = port
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(64)
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self.socket.accept()[0],), daemon=True).start()

    def _serve(self, near):
        with near, contextlib.suppress(OSError):
            first = near.recv(65536)
            if not first:
                return
            with socket.create_connection(("127.0.0.1", self.port), 5) as far:
                far.settimeout(None)
                far.sendall(first)
                back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
                back.start()
                self._pump(near, far)
                back.join()

    @staticmethod
    def _pump(source, to):
        try:
            while data := source.recv(65536):
                to.sendall(data)
        except OSError:
            pass
        with contextlib.suppress(OSError):
            to.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def origin_port():
    return free_port()


@pytest.fixture(scope="module")
def services(origin_port):
    relay = Relay(origin_port)
    running = Services(lambda _: {"apps": {"a": {"servers": [relay.address], "retry": {"attempts": 0}}},
                                  "routes": [{"path": "/*", "app": "a"}]})
    yield running
    running.close()
    relay.close()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script(services, origin_port, engine, script, tmp_path):
    service = services(engine)
    host, port = service.address
    run = subprocess.run(["varnishtest", "-t", "20", "-D", f"gateway={host}:{port}", "-D", f"origin={host}:{origin_port}",
                          str(script)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
                         env={**os.environ, "TMPDIR": str(tmp_path)}, cwd=tmp_path)
    assert run.returncode == 0, run.stdout[-6000:]
