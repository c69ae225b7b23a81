"""`stateway store stat|check|backup|compact`, beside a gateway that works and on files that are damaged."""
import fcntl
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest

import harness
from harness import Gateway
from test_session import Visitor, respond, route


@pytest.fixture(scope="module")
def app():
    origin = harness.Origin(respond)
    yield origin.address
    origin.close()


@pytest.fixture(autouse=True)
def kind(request, monkeypatch):
    """The kind of store that gateways have here: lmdb, unless a test is run on both."""
    monkeypatch.setenv("STATEWAY_TEST_STORE", getattr(request, "param", "lmdb"))
    return harness.store_kind()


both = pytest.mark.parametrize("kind", ["lmdb", "journal"], indirect=True)


def gateway(app, folder, ready=True, **more):
    return Gateway({"apps": {"o": {"servers": [app]}}, "routes": [route("s", alarm="/alarm")], **more}, folder=folder,
                   ready=ready)


def store(*words, code=0, cwd=None):
    """Runs the command; (stdout, stderr)."""
    done = subprocess.run([str(harness.BINARY), "store", *map(str, words)], capture_output=True, text=True, timeout=120,
                          cwd=cwd, check=False)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert not harness.REPORTS.search(done.stderr), done.stderr
    return done.stdout, done.stderr


def figures(text):
    """{"records": 20, ...} of the lines that have a number only."""
    return {m[1].strip(): int(m[2]) for m in re.finditer(r"^ *(\D+?) +(\d+)$", text, re.M)}


def fill(g, count, subject=True):
    visitors = []
    for n in range(count):
        visitor = Visitor(g)
        send = [("Stateway-Alarm", "in=3600000;id=far")] if n % 2 == 0 else []
        if subject:
            send.append(("Stateway-Subject", f"user-{n % 5}"))
        assert visitor.set({"n": n, "much": "x" * 500}, send=send).status == 200
        visitors.append(visitor)
    return visitors


def at(folder, name="state"):
    return f"{harness.store_kind()}:{folder}/{name}"


def files(folder):
    """What a store keeps, without its locks."""
    return sorted(p.name for p in folder.iterdir() if "lock" not in p.name)


@both
def test_stat_and_check_beside_a_gateway(app, tmp_path, kind):
    with gateway(app, tmp_path) as g:
        fill(g, 20)
        for where in (["--store", at(tmp_path)], ["-c", g.file], ["-c", "/no/such", "--store", at(tmp_path)]):
            out, err = store("stat", *where)
            assert err == ""
            f = figures(out)
            assert (f["records"], f["with a subject"], f["with a due time"], f["cut-offs"]) == (20, 20, 10, 0), out
            assert re.search(rf"^format +{2 if kind == 'lmdb' else 1}, made 20\d\d-", out, re.M)
            assert re.search(r"^file +[\d.]+ [KM]iB on the disk: ", out, re.M)
        out, err = store("check", "-c", g.file)
        assert err == "" and "whole: every " in out
        f = figures(out)
        assert f["states"] == 20
        if kind == "lmdb":
            assert (f["damaged records"], f["wrong entries"]) == (0, 0)
        else:
            assert (f["damaged frames"], f["segments"]) == (0, 1)
        # a subject is ended: a small record for each name that it has here
        assert g.admin("DELETE", "/v1/subjects/user-1").status == 200
        out, _ = store("stat", "--store", at(tmp_path))
        assert 1 <= figures(out)["cut-offs"] <= 4
        store("check", "--store", at(tmp_path))
    if kind == "lmdb":  # without flags: ./state
        out, _ = store("stat", cwd=tmp_path)
        assert figures(out)["records"] == 20


@both
def test_backup_beside_a_gateway_and_back(app, tmp_path, kind):
    copy = tmp_path / "monday"
    with gateway(app, tmp_path) as g:
        visitors = fill(g, 10)
        out, err = store("backup", copy, "--store", at(tmp_path))
        assert err == "" and f"{copy}: 10 records" in out and "keys.json" in out
        for v in visitors:
            assert v.set({"n": -1}).status == 200
        visitors += fill(g, 5)
        _, err = store("backup", copy, "--store", at(tmp_path), code=1)
        assert "is there already" in err
        assert files(copy) == ["data.mdb" if kind == "lmdb" else "0000000000000001.journal"]
        assert oct(copy.stat().st_mode)[-3:] == "700"
    store("check", "--store", f"{kind}:{copy}")
    for old in (tmp_path / "state").glob("*.journal"):
        old.unlink()
    for name in files(copy):
        shutil.copy(copy / name, tmp_path / "state" / name)
    with gateway(app, tmp_path) as g:
        for n, v in enumerate(visitors[:10]):
            assert Visitor(g, cookies=v.cookies).state()["n"] == n  # as it was then
        for v in visitors[10:]:
            assert Visitor(g, cookies=v.cookies).state() is None
    # the copy is a store too
    with gateway(app, tmp_path, store=f"{kind}:{copy}") as g:
        assert Visitor(g, cookies=visitors[3].cookies).state()["n"] == 3


@both
def test_what_a_killed_backup_left_is_replaced(app, tmp_path, kind):
    """It never bears the copy's name; the next backup to that place removes it, but not one that still runs."""
    with gateway(app, tmp_path) as g:
        fill(g, 10)
    half, running = tmp_path / "copy.part-aB3dE6", tmp_path / "copy.part-000000"
    others = [tmp_path / "copy.part-foreign", tmp_path / "copies.part-aB3dE6", tmp_path / "copy.part-mine12"]
    name = "data.mdb" if kind == "lmdb" else "0000000000000001.journal"
    for folder in (half, running, *others):
        folder.mkdir()
        (folder / name).write_bytes(b"half of it")
    (others[2] / "notes.txt").write_text("of a human")
    held = os.open(running, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        store("backup", tmp_path / "copy", "--store", at(tmp_path))
    finally:
        os.close(held)
    assert not half.exists()
    assert (running / name).exists()
    assert all(folder.exists() for folder in others)
    assert (others[2] / "notes.txt").exists()
    out, _ = store("check", "--store", at(tmp_path, "copy"))
    assert figures(out)["states"] == 10
    # one that is killed at any moment, and then one that is not
    for n in range(10):
        p = subprocess.Popen([str(harness.BINARY), "store", "backup", str(tmp_path / "late"), "--store", at(tmp_path)],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(random.random() * 0.05)
        p.kill()
        p.wait()
        if (tmp_path / "late").exists():
            store("check", "--store", at(tmp_path, "late"))  # named, so whole
            shutil.rmtree(tmp_path / "late")
    harness.wait_for(lambda: not [q for q in harness.all_pids() if harness.alive(q) and b"store\0" in cmdline(q)
                                  and str(tmp_path).encode() in cmdline(q)])
    store("backup", tmp_path / "late", "--store", at(tmp_path))
    assert not list(tmp_path.glob("late.part-*"))


@both
def test_backups_under_load_are_whole(app, tmp_path):
    with gateway(app, tmp_path) as g:
        stop = threading.Event()
        threads = [threading.Thread(target=write_on, args=(g, stop, [], i)) for i in range(4)]
        for t in threads:
            t.start()
        try:
            for i in range(5):
                store("backup", tmp_path / f"b{i}", "--store", at(tmp_path))
                store("check", "--store", at(tmp_path, f"b{i}"))
                store("check", "--store", at(tmp_path))
        finally:
            stop.set()
            for t in threads:
                t.join()
        store("check", "--store", at(tmp_path))


@both
def test_compact(app, tmp_path, kind):
    with gateway(app, tmp_path) as g:
        visitors = fill(g, 60)
        for v in visitors[10:]:
            assert v.delete().status == 200
        _, err = store("compact", "--store", at(tmp_path), code=1)
        assert f"process {g.gateway_pid()} has it open" in err
        assert visitors[0].state()["n"] == 0
    name = files(tmp_path / "state")[0]
    before = (tmp_path / "state" / name).stat()
    out, err = store("compact", "--store", at(tmp_path))
    assert err == "" and re.search(r": [\d.]+ KiB before, [\d.]+ KiB now", out)
    assert len(files(tmp_path / "state")) == 1 and (kind == "journal") == (files(tmp_path / "state") != [name])
    after = (tmp_path / "state" / files(tmp_path / "state")[0]).stat()
    assert after.st_blocks < before.st_blocks and after.st_mode == before.st_mode
    out, _ = store("check", "--store", at(tmp_path))
    assert figures(out)["states"] == 10
    with gateway(app, tmp_path) as g:
        for n, v in enumerate(visitors[:10]):
            assert Visitor(g, cookies=v.cookies).state()["n"] == n
        assert Visitor(g, cookies=visitors[0].cookies).set({"n": 100}).status == 200
        store("check", "--store", at(tmp_path))
        assert Visitor(g, cookies=visitors[20].cookies).state() is None


@both
def test_a_gateway_waits_for_nothing_that_was_killed(app, tmp_path):
    """Commands that were killed hold no lock, leave no half file in the way, and no pages used."""
    with gateway(app, tmp_path) as g:
        fill(g, 30)
    for n in range(12):
        for words in (["check"], ["compact"], ["backup", str(tmp_path / f"k{n}")]):
            p = subprocess.Popen([str(harness.BINARY), "store", *words, "--store", at(tmp_path)],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(random.random() * 0.06)
            p.kill()
            p.wait()
            harness.wait_for(lambda me=p.pid: not [q for q in harness.all_pids() if harness.alive(q) and
                                                   b"store\0" in cmdline(q) and str(tmp_path).encode() in cmdline(q)])
    with gateway(app, tmp_path) as g:
        fill(g, 5)
        assert not (tmp_path / "state" / "new.mdb").exists()
        out, _ = store("check", "--store", at(tmp_path))
        assert figures(out)["states"] == 35


def cmdline(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read()
    except OSError:
        return b""


# ---- kills ----


def write_on(g, stop, acked, seed):
    """One visitor after the other, with subjects that change; acked: (cookies, n) as answered."""
    rng = random.Random(seed)
    while not stop.is_set():
        visitor, n = Visitor(g), 0
        for _ in range(rng.randrange(1, 8)):
            n += 1
            send = [("Stateway-Subject", rng.choice(["alice", "bob", ""])),
                    ("Stateway-Alarm", rng.choice(["in=3600000;id=a", "in=7200000;id=a", "cancel;id=a"]))]
            try:
                got = visitor.set({"n": n}, send=send)
            except (OSError, EOFError, AssertionError):
                break  # killed in between: this one's outcome is not known
            if got.status != 200:
                break
        else:
            acked.append((dict(visitor.cookies), n))


@both
def test_killed_gateways_leave_whole_indexes(app, tmp_path, kind):
    with gateway(app, tmp_path) as g:
        stop, acked = threading.Event(), []
        threads = [threading.Thread(target=write_on, args=(g, stop, acked, i)) for i in range(6)]
        for t in threads:
            t.start()
        try:
            for _ in range(6):
                time.sleep(0.3 + random.random() * 0.3)
                old = g.gateway_pid()
                os.kill(old, signal.SIGKILL)
                harness.wait_for(lambda old=old: not harness.alive(old))
                out, err = store("check", "--store", at(tmp_path))  # perhaps beside the next one
                assert err == "" and figures(out)["wrong entries" if kind == "lmdb" else "damaged frames"] == 0
                g.wait_ready()
        finally:
            stop.set()
            for t in threads:
                t.join()
        assert len(acked) > 20
        for cookies, n in acked:
            assert Visitor(g, cookies=cookies).state()["n"] == n
        out, _ = store("check", "--store", at(tmp_path))
        shown = figures(out)
        listed = {s: g.admin("GET", f"/v1/subjects/{s}").json()["sessions"] for s in ("alice", "bob")}
        assert sum(listed.values()) == shown["with a subject"], (listed, out)
    store("check", "--store", at(tmp_path))


# ---- damage ----


def test_damaged_pages_are_found(app, tmp_path):
    with gateway(app, tmp_path) as g:
        fill(g, 200)
    data = tmp_path / "state" / "data.mdb"
    store("compact", "--store", at(tmp_path))  # no page is free: each one matters
    whole = data.read_bytes()
    pages = len(whole) // 4096
    store("check", "--store", at(tmp_path))
    found = 0
    for page in random.sample(range(2, pages), min(pages - 2, 25)):
        for junk in (os.urandom(4096), b"\0" * 4096):
            bad = bytearray(whole)
            bad[page * 4096:(page + 1) * 4096] = junk
            data.write_bytes(bad)
            done = subprocess.run([str(harness.BINARY), "store", "check", "--store", at(tmp_path)], timeout=60,
                                  capture_output=True, text=True, check=False)
            assert done.returncode == 1, (page, done)
            assert "stateway store: store" in done.stderr and "Assertion" not in done.stderr, done.stderr
            assert "backup" in done.stderr or "another folder" in done.stderr, done.stderr
            found += 1
    assert found >= 20
    data.write_bytes(whole)
    out, _ = store("check", "--store", at(tmp_path))
    assert figures(out)["states"] == 200


def test_a_cut_file_is_refused(app, tmp_path):
    with gateway(app, tmp_path) as g:
        fill(g, 20)
    data = tmp_path / "state" / "data.mdb"
    os.truncate(data, 5 * 4096)
    for words in (["stat"], ["check"], ["compact"], ["backup", tmp_path / "b"]):
        _, err = store(*words, "--store", at(tmp_path), code=1)
        assert "the file is cut" in err and "restore it from a backup" in err
    assert not list(tmp_path.glob("b*"))


@pytest.mark.parametrize("kind", ["journal"], indirect=True)
def test_damaged_frames_are_found(app, tmp_path, kind):
    """What is damaged is said, start and backup refuse it, and nothing of it was changed."""
    with gateway(app, tmp_path) as g:
        visitors = fill(g, 40)
    [segment] = (tmp_path / "state").glob("*.journal")
    whole = segment.read_bytes()
    for at_byte in [0, 100, 4096, len(whole) - 1] + random.sample(range(4096, len(whole)), 12):
        bad = bytearray(whole)
        bad[at_byte] ^= 1 << random.randrange(8)
        segment.write_bytes(bad)
        _, err = store("check", "--store", at(tmp_path), code=1)
        assert segment.name in err and "backup" in err or "name another folder" in err, (at_byte, err)
        store("backup", tmp_path / "b", "--store", at(tmp_path), code=1)
        store("compact", "--store", at(tmp_path), code=1)
        assert segment.read_bytes() == bad and files(tmp_path / "state") == [segment.name]
        assert not list(tmp_path.glob("b*"))
    g = gateway(app, tmp_path, ready=False)
    try:
        assert g.wait(20) == 3, g.log()
        assert segment.name in g.log() and "restore the folder from a backup" in g.log()
        g.check(3)
    finally:
        g.discard()
    segment.write_bytes(whole)
    with gateway(app, tmp_path) as g:
        assert Visitor(g, cookies=visitors[7].cookies).state()["n"] == 7


# ---- words ----


@pytest.mark.parametrize("words, said", [
    ([], "what to do? stat, check, backup or compact"),
    (["chek"], 'did you mean "check"?'),
    (["frobnicate"], "it is stat, check, backup or compact"),
    (["stat", "more"], "stat takes no word behind it"),
    (["backup"], "backup takes FOLDER"),
    (["check", "--store", "memory:"], "a store in memory has no file"),
    (["check", "--store", "nothing"], "this works on lmdb:FOLDER and journal:FOLDER, not on"),
    (["check", "--store", "lmdb:"], "this works on lmdb:FOLDER and journal:FOLDER, not on"),
    (["check", "--store", "journal:"], "this works on lmdb:FOLDER and journal:FOLDER, not on"),
    (["check", "--listen", "127.0.0.1:1"], "there is no flag"),
])
def test_wrong_usage(words, said):
    out, err = store(*words, code=2)
    assert out == "" and said in err and "--help" in err


@both
def test_what_is_not_there(tmp_path, kind):
    for words in (["stat"], ["check"], ["compact"], ["backup", tmp_path / "b"]):
        _, err = store(*words, "--store", at(tmp_path, "none"), code=1)
        assert "none" in err
    assert list(tmp_path.iterdir()) == []
    _, err = store("stat", "-c", tmp_path / "none.yaml", code=1)
    assert "cannot read the configuration" in err


def test_help():
    done = subprocess.run([str(harness.BINARY), "store", "--help"], capture_output=True, text=True, check=True)
    for word in ("stat", "check", "backup", "compact", "--store", "lmdb:./state", "journal:FOLDER"):
        assert word in done.stdout
    assert "store " in subprocess.run([str(harness.BINARY), "--help"], capture_output=True, text=True, check=True).stdout
