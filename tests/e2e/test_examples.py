"""The counter in every language behind `stateway run --state session`: right counts, whoever is killed."""
import os
import random
import shutil
import signal
import subprocess

import pytest

from harness import BINARY, BUILD, PYTHON, REPORTS, ROOT, free_port, wait_for

EXAMPLES = ROOT / "examples" / "counter"


def command(which):
    """As in examples/README.md; skips when what it needs is not installed."""
    if which == "flask" and subprocess.run([PYTHON, "-c", "import flask"], capture_output=True,
                                           check=False).returncode != 0:
        pytest.skip("flask is not installed")
    found = {
        "node": ["node", EXAMPLES / "counter.mjs"],
        "python": [PYTHON, EXAMPLES / "counter.py"],
        "flask": [PYTHON, EXAMPLES / "counter_flask.py"],
        "php": ["php", "-S", "127.0.0.1:{port}", EXAMPLES / "counter.php"],
        "c": [BUILD / "apps" / "counter"],
    }[which]
    if shutil.which(found[0]) is None:
        pytest.skip(f"{found[0]} is not installed or not built")
    return found


@pytest.mark.parametrize("which", ["node", "python", "flask", "php", "c"])
def test_counts_survive_every_instance(gateway, which):
    listen, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    g = gateway(args=["run", "--listen", listen, "--admin", admin, "--workers", 2, "--state", "session", "--",
                      *command(which)])
    g.config = {"listen": [{"address": listen}], "admin": {"address": admin}}
    wait_for(lambda: len(g.instances()) == 3, what="three instances")
    visitors = [{} for _ in range(4)]
    counts = [0] * len(visitors)
    killed = set()
    for n in range(24):
        who = n % len(visitors)
        method = "POST" if n % 3 == 0 else "GET"
        got = g.request(method, "/", body=b"" if method == "POST" else None, cookies=visitors[who])
        counts[who] += 1
        assert (got.status, int(got.body)) == (200, counts[who])
        read = g.get("/read", cookies=visitors[who])
        assert int(read.body) == counts[who]
        if n % 4 == 3:  # each instance that was there at the beginning dies at some time
            name, pid = random.choice([i for i in g.instances().items() if i[1] not in killed])
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
            wait_for(lambda: next(i for i in g.apps().values())
                     and all(i["pid"] != pid for app in g.apps().values() for i in app if i["state"] == "healthy"))
    assert len({v["sid"] for v in visitors}) == 4
    # And the gateway itself.
    g.kill_gateway()
    for who, cookies in enumerate(visitors):
        assert int(g.get("/", cookies=cookies).body) == counts[who] + 1


@pytest.mark.parametrize("more", [[], ["--config", "stateway-reject.yaml", "--forgets"]])
def test_nobody_is_charged_twice(tmp_path, more):
    """The payment: authorized, captured, refunded by clients who never give up, while everything is killed."""
    done = subprocess.run([PYTHON, ROOT / "examples" / "payment" / "storm.py", "--payments", "150", *more], cwd=tmp_path,
                          env={**os.environ, "STATEWAY": str(BINARY)}, capture_output=True, text=True, timeout=300,
                          check=False)
    assert done.returncode == 0 and "wrong: 0" in done.stdout, done.stdout + done.stderr
    assert not REPORTS.search(done.stdout + done.stderr)
