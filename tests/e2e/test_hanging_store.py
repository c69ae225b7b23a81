"""A disk that hangs: the store's thread is stopped (ptrace). Its clients are told in time, and what is true."""
import concurrent.futures
import contextlib
import ctypes
import json
import os
import time
from pathlib import Path

import pytest

from harness import Gateway, Origin, answer, wait_for

SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
WALL = 0x40000000  # of waitpid: a thread that is no child
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


@contextlib.contextmanager
def hanging(gateway):
    """Its committer stands still, wherever it is."""
    tasks = Path(f"/proc/{gateway.gateway_pid()}/task")
    tid = next(int(t.name) for t in tasks.iterdir() if (t / "comm").read_text().strip() == "store")
    if libc.ptrace(SEIZE, tid, None, None) != 0:
        pytest.skip(f"ptrace is not allowed here: {os.strerror(ctypes.get_errno())}")
    assert libc.ptrace(INTERRUPT, tid, None, None) == 0
    os.waitpid(tid, WALL)
    try:
        yield
    finally:
        libc.ptrace(DETACH, tid, None, None)


@pytest.fixture(params=["lmdb", "journal"])
def world(request, monkeypatch):
    def respond(asked, raw):
        if asked.method == "GET":
            return answer(200, json.dumps({"state": asked.get("stateway-state")}))
        return answer(200, b"", [("Stateway-Patch", json.dumps({asked.target.split("?")[1]: 1}))])

    monkeypatch.setenv("STATEWAY_TEST_STORE", request.param)
    origin = Origin(respond)
    with Gateway({"apps": {"a": {"servers": [origin.address]}}, "timeouts": {"exchange": "1500ms"},
                  "routes": [{"path": f"/{mode}/{{room}}", "app": "a", "state": "session",
                              "session": {"key": "path.room", "concurrency": mode, "queue": {"wait": "1s"}}}
                             for mode in ("merge", "serial")] +
                            [{"path": "/pay", "app": "a", "idempotency": {"principal": "header.X-Who"}}]}) as gateway:
        gateway.origin = origin
        yield gateway
    origin.close()


def state(world, path):
    text = world.get(path).json()["state"]
    return text if text is None else json.loads(text)


def refused(got, status, label):
    assert (got.status, got.get("stateway-error")) == (status, label), got


@pytest.mark.parametrize("mode, behind", [("merge", (504, "exchange-slow")), ("serial", (503, "queue-wait"))])
def test_who_waits_behind_a_commit_that_hangs(world, mode, behind):
    """Whoever is under way learns that nobody knows. Whoever waits behind it was not done, for good."""
    path = f"/{mode}/r"
    assert world.post(f"{path}?before").status == 200
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        with hanging(world):
            first = pool.submit(world.post, f"{path}?first")
            time.sleep(0.4)
            later = [pool.submit(world.post, f"{path}?later{n}") for n in range(2)]
            assert state(world, path) == {"before": 1}  # reads go on
            refused(first.result(), 504, "commit-slow")
            for one in later:
                refused(one.result(), *behind)
        # the disk goes on: the first one's commit may be made, those of the others never
        wait_for(lambda: world.post(f"{path}?after").status == 200)
    time.sleep(0.3)
    assert set(state(world, path)) == {"before", "first", "after"}


def test_a_key_that_cannot_be_kept_in_time(world):
    """The app is not asked before the key is durable; when the disk goes on the key is as new."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with hanging(world):
            got = pool.submit(world.post, "/pay?x", headers=[("Idempotency-Key", "k"), ("X-Who", "a")]).result()
            refused(got, 503, "idempotency-store")
            assert not [a for a in world.origin.asked if a.target.startswith("/pay")]
    got = wait_for(lambda: (lambda a: a if a.status == 200 else None)(
        world.post("/pay?x", headers=[("Idempotency-Key", "k"), ("X-Who", "a")])))
    assert got.get("idempotent-replayed") is None
    assert len([a for a in world.origin.asked if a.target.startswith("/pay")]) == 1


def test_many_keys_while_it_hangs_and_then(world):
    """It hangs for a moment only: everybody gets his answer, and it is true."""
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        with hanging(world):
            all_of_them = [pool.submit(world.post, f"/serial/k{n}?n") for n in range(20)]
            time.sleep(0.7)
        assert [one.result().status for one in all_of_them] == [200] * 20
    assert all(state(world, f"/serial/k{n}") == {"n": 1} for n in range(20))
