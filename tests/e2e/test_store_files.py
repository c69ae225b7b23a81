"""Files at start: damaged, foreign, newer, busy, unreachable. Each is refused with a remedy, exit code 3, and untouched."""
import contextlib
import hashlib
import json
import os
import shutil
import struct
import subprocess
import time

import pytest

import harness
from harness import Gateway, wait_for
from test_session import Visitor, metric, respond, route

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def config(origin, **more):
    return {"apps": {"o": {"servers": [origin]}}, "routes": [route("s")], **more}


@pytest.fixture(scope="module")
def app():
    origin = harness.Origin(respond)
    yield origin.address
    origin.close()


@pytest.fixture
def used(app, tmp_path):
    """A folder with a store that holds one state; (folder, the visitor's cookies)."""
    with Gateway(config(app, store=f"lmdb:{tmp_path}/state"), folder=tmp_path) as g:
        visitor = Visitor(g)
        for n in range(20):
            assert visitor.set({"n": n, "much": "x" * 3000}).status == 200
    return tmp_path, visitor.cookies


def data_file(folder):
    files = [f for f in (folder / "state").iterdir() if f.stat().st_size > 4096]
    assert len(files) == 1, files
    return files[0]


def fingerprint(folder):
    """Of all files below it but logs, locks and what we wrote ourselves."""
    return {str(p.relative_to(folder)): (hashlib.sha256(p.read_bytes()).hexdigest(), oct(p.stat().st_mode))
            for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix not in (".log", ".yaml") and "lock" not in p.name}


def refused(app, folder, *words, **more):
    """Starts and must end with 3 at once, saying the words; nothing below the folder has changed."""
    before = fingerprint(folder)
    for name in ("out.log", "err.log"):
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()
    g = Gateway(config(app, **{"store": f"lmdb:{folder}/state", **more}), folder=folder, ready=False)
    try:
        assert g.wait(20) == 3, g.log()
        said = [line for line in g.log().splitlines() if all(word in line for word in words)]
        assert said, f"nothing says {words}:\n{g.log()}"
        g.check(3)
    finally:
        g.discard()
    after = fingerprint(folder)
    after = {name: after[name] for name in after if name in before or name != "keys.json"}
    assert after == before
    return said[0]


def serves(app, folder, cookies, n=19, **more):
    """It still starts, and the state is there."""
    with Gateway(config(app, **{"store": f"lmdb:{folder}/state", **more}), folder=folder) as g:
        assert Visitor(g, cookies=cookies).state()["n"] == n


# ---- the data file ----


def test_truncated(app, used):
    folder, cookies = used
    target = data_file(folder)
    whole = target.read_bytes()
    page = struct.unpack_from("<I", whole, 40)[0]  # LMDB's head: the size of a page, twice the last one in use
    last = max(struct.unpack_from("<Q", whole, at + 136)[0] for at in (0, page))
    assert 5 < last < len(whole) // page
    for size in (last * page, 2 * page, page, 100, 1):
        target.write_bytes(whole[:size])
        said = refused(app, folder, "store ", str(target))
        assert "restore it from a backup" in said or "name another folder" in said, said
    target.write_bytes(b"")
    refused(app, folder, "the file is empty", "restore it from a backup, or remove it")
    target.write_bytes(whole)
    serves(app, folder, cookies)


def test_garbage(app, used):
    folder, cookies = used
    target = data_file(folder)
    whole = target.read_bytes()
    for junk in (os.urandom(65536), b"\0" * 65536, b"SQLite format 3\0" + b"\0" * 8192, b"hello\n" * 10000):
        target.write_bytes(junk)
        refused(app, folder, "not a store of stateway (no LMDB file)", "left as it is", "name another folder")
    target.write_bytes(whole)
    serves(app, folder, cookies)


def test_head_overwritten_in_part(app, used):
    folder, _ = used
    target = data_file(folder)
    whole = bytearray(target.read_bytes())
    whole[4096:4200] = b"\xff" * 104  # the second meta page
    target.write_bytes(whole)
    refused(app, folder, "damaged", "restore it from a backup")


def test_foreign_lmdb(app, tmp_path):
    lmdb = pytest.importorskip("lmdb", reason="python3-lmdb is not installed")
    (tmp_path / "state").mkdir()
    with Gateway(config(app, store=f"lmdb:{tmp_path}/other"), folder=tmp_path):
        name = max((tmp_path / "other").iterdir(), key=lambda p: p.stat().st_size).name
    with lmdb.open(str(tmp_path / "state" / name), subdir=False, max_dbs=3) as env:
        with env.begin(write=True) as txn:
            txn.put(b"somebody", b"else's")
    for lock in (tmp_path / "state").glob("*-lock"):
        lock.unlink()
    refused(app, tmp_path, "an LMDB file, but not a store of stateway", "name another folder")


def test_newer_format(app, used):
    folder, cookies = used
    target = data_file(folder)
    whole = target.read_bytes()
    assert whole.count(b"stateway") >= 1
    newer = bytearray(whole)
    at, found = -1, 0
    while (at := whole.find(b"stateway", at + 1)) >= 0:
        if struct.unpack_from("<I", whole, at + 8)[0] < 100 or struct.unpack_from(">I", whole, at + 8)[0] < 100:
            newer[at + 8:at + 12] = b"\x63\x63\x63\x63"  # no matter which byte order
            found += 1
    assert found >= 1
    target.write_bytes(newer)
    said = refused(app, folder, "this stateway knows format", "use the stateway that wrote it")
    assert str(0x63636363) in said
    target.write_bytes(whole)
    serves(app, folder, cookies)


def test_second_process(app, used, tmp_path):
    folder, cookies = used
    with Gateway(config(app, store=f"lmdb:{folder}/state"), folder=folder) as g:
        visitor = Visitor(g, cookies=cookies)
        other = tmp_path / "second"
        other.mkdir()
        before = fingerprint(folder / "state")
        refused(app, other, "has it open", f"process {g.gateway_pid()}", "stop that one, or name another folder",
                store=f"lmdb:{folder}/state", keys={"file": f"{folder}/keys.json"})
        assert fingerprint(folder / "state") == before
        assert visitor.set({"n": 1}).status == 200  # the first one is not disturbed
        assert visitor.state() == {"n": 1}
    serves(app, folder, cookies, 1)


# ---- the folder ----


def test_missing_folder_is_made(app, tmp_path):
    with Gateway(config(app, store=f"lmdb:{tmp_path}/state"), folder=tmp_path):
        assert oct((tmp_path / "state").stat().st_mode)[-3:] == "700"
    refused(app, tmp_path, "make the folder above it first", store=f"lmdb:{tmp_path}/no/such/state",
            keys={"file": f"{tmp_path}/keys.json"})


def test_folder_is_a_file(app, tmp_path):
    (tmp_path / "state").write_text("somebody's notes")
    refused(app, tmp_path, "store ", str(tmp_path / "state"))


@root_only
def test_read_only_file_system(app, tmp_path):
    place = tmp_path / "ro"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", place], capture_output=True,
                      check=False).returncode != 0:
        pytest.skip("mount is not allowed here")
    try:
        refused(app, tmp_path, "store ", "Read-only file system", store=f"lmdb:{place}/state",
                keys={"file": f"{tmp_path}/keys.json"})
    finally:
        subprocess.run(["umount", place], check=True)


@root_only
def test_unwritable_folder(app, used):
    """Not as root: for nobody the folder is closed."""
    folder, _ = used
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == 0 and parent != parent.parent and "pytest" in str(parent):
            parent.chmod(0o755)
    done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(harness.BINARY), "run", "-c",
                           str(folder / "stateway.yaml")], capture_output=True, text=True, timeout=30, check=False, cwd="/")
    if "ermission denied" in done.stderr and "stateway.yaml" in done.stderr or done.returncode in (126, 127):
        pytest.skip("nobody cannot even reach the binary or the file here")
    assert done.returncode == 3, done
    assert "ermission denied" in done.stdout + done.stderr


# ---- full ----


def test_full_map(gateway, app):
    """limits.store is used up: updates are refused, reads go on, ends are possible and make room."""
    g = gateway(config(app, limits={"store": "1MiB"}))
    visitors = []
    refusal = None
    for _ in range(1000):
        visitor = Visitor(g)
        got = visitor.set({"x": "y" * 3900})
        if got.status != 200:
            refusal = got
            break
        visitors.append(visitor)
    assert refusal is not None, "1 MiB holds more than 3.9 MB?"
    assert (refusal.status, refusal.get("stateway-error"), refusal.get("retry-after")) == (503, "commit-failed", "1")
    assert not refusal.all("set-cookie")
    assert len(visitors) > 50
    for visitor in random_few(visitors):
        assert visitor.state() == {"x": "y" * 3900}
    assert metric(g, "stateway_store_failures_total") >= 1
    ended = 0
    for visitor in visitors[:-1]:
        assert visitor.delete().status == 200
        ended += 1
        if Visitor(g).set({"x": "y" * 3900}).status == 200:
            break
    assert ended < len(visitors) / 4  # what deletes may use beyond the limit comes back first
    assert visitors[-1].state() == {"x": "y" * 3900}


def random_few(visitors):
    return [visitors[0], visitors[len(visitors) // 2], visitors[-1]]


@root_only
def test_full_disk(gateway, app, tmp_path):
    """A tiny tmpfs that somebody else fills: 503, reads go on; room again: writes go on. Nothing acknowledged is lost."""
    place = tmp_path / "tiny"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", place], capture_output=True,
                      check=False).returncode != 0:
        pytest.skip("mount is not allowed here")
    try:
        g = gateway(config(app, store=f"lmdb:{place}/state", keys={"file": f"{tmp_path}/keys.json"}))
        first = Visitor(g)
        assert first.set({"x": 1}).status == 200
        ballast = place / "ballast"
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as out:
            while True:
                out.write(b"\0" * 4096)
        crowd, refusals = [], 0
        for _ in range(300):
            visitor = Visitor(g)
            got = visitor.set({"x": "y" * 3900})
            if got.status == 200:
                crowd.append(visitor)
            else:
                assert (got.status, got.get("stateway-error")) == (503, "commit-failed")
                refusals += 1
                if refusals == 5:
                    break
        assert refusals == 5
        assert first.state() == {"x": 1}
        assert first.ask("POST").status == 200
        for visitor in crowd[-5:]:
            assert visitor.state() == {"x": "y" * 3900}
        ballast.unlink()
        wait_for(lambda: first.set({"x": 2}).status == 200, 10, "room again")
        g.kill_gateway()
        assert first.state() == {"x": 2}
        for visitor in crowd[-5:]:
            assert visitor.state() == {"x": "y" * 3900}
        g.stop()
        g.check()
    finally:
        time.sleep(0.1)
        subprocess.run(["umount", "-l", place], check=True)


# ---- the key ring ----


def test_key_ring_is_made_private(app, used):
    folder, _ = used
    assert oct((folder / "keys.json").stat().st_mode)[-3:] == "600"
    assert json.loads((folder / "keys.json").read_text())["version"] == 1


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_key_ring_that_others_may_read(app, used, mode):
    folder, cookies = used
    (folder / "keys.json").chmod(mode)
    said = refused(app, folder, "keys.json", "chmod 600")
    assert "others" in said or "group" in said, said
    (folder / "keys.json").chmod(0o600)
    serves(app, folder, cookies)


@pytest.mark.parametrize("text, words", [
    ("", ["keys.json"]), ("{", ["not JSON"]), ("[]", ["no JSON object"]), ("{}", ["version"]),
    ('{"version":3,"keys":[]}', ["newer stateway"]), ('{"version":1,"keys":[]}', ["exactly one key must be \"active\""]),
    ('{"version":1,"keys":[{"id":1}]}', ["lacks"]), ("\0" * 100, ["keys.json"]),
    ('{"version":1,"keys":[{"id":1,"state":"active","created":1,"secret":"short"}]}', ["32 bytes"]),
    ("x" * 2_000_000, ["keys.json"]),
], ids=range(10))
def test_broken_key_ring(app, used, text, words):
    folder, _ = used
    file = folder / "keys.json"
    file.write_text(text)
    file.chmod(0o600)
    refused(app, folder, *words)


def test_lost_key_ring_makes_a_new_one(app, used):
    """States do not depend on it (their keys are plain hashes); pins and visitors' hashes do."""
    folder, cookies = used
    (folder / "keys.json").unlink()
    serves(app, folder, cookies)
