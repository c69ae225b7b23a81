"""`store: journal:PATH` behind a whole gateway: sessions, kills, limits, folders.

What sessions, idempotency keys and alarms promise does not depend on the store: some of those tests run here once more,
and all of them do with STATEWAY_TEST_STORE=journal. `stateway store` on a journal is in test_store_commands.py.
"""
import contextlib
import os
import random
import subprocess
import threading
import time

import pytest

import harness
import test_kills
import test_session
from harness import Gateway, wait_for
from test_session import Visitor, metric, respond, route
from test_store_commands import fill, store, write_on
from test_store_files import config, fingerprint, refused

ENGINE = "epoll"


@pytest.fixture(scope="module", autouse=True)
def on_a_journal():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STATEWAY_TEST_STORE", "journal")
        yield


@pytest.fixture(scope="module")
def app():
    origin = harness.Origin(respond)
    yield origin.address
    origin.close()


# ---- the tests of sessions, once more ----


@pytest.fixture(scope="module")
def world():
    yield from test_session.start_world(ENGINE)


# All that reach the store in a way of their own; not those of cookies, headers, and of waiting for a clock.
AGAIN = """first_write_makes_the_cookie set_replaces patch text_is_compacted_and_kept non_ascii_round_trip delete_is_logout
    delete_while_a_writer_runs entity_can_be_made_again inline_limit what_is_wrong_commits_nothing versions_and_expect
    reads_do_not_change_the_version renew_alone_and_with_patch change_of_subject_renews logout_through_the_old_id
    no_fork_when_a_renewal_and_a_write_cross logout_wins_over_a_renewal one_id_of_three_kinds_is_three_states
    fifty_increments fifty_reads_that_write reads_and_writes_that_write first_come_first_served cas merge last
    last_first_writers_of_an_entity merge_does_not_revive_the_dead"""
globals().update({f"test_{name}": getattr(test_session, f"test_{name}") for name in AGAIN.split()})


def test_answered_is_durable(gateway, origin):
    test_session.test_answered_is_durable(gateway, ENGINE, origin)


def test_versions_and_ends_outlive_the_gateway(gateway, origin):
    test_session.test_versions_and_ends_outlive_the_gateway(gateway, ENGINE, origin)


# ---- kills ----


@pytest.mark.skipif(not test_kills.COUNTER.exists(), reason="the counter is not built (libmicrohttpd, jansson)")
def test_gateway_dies_under_writes(gateway):
    test_kills.test_gateway_dies_under_writes(gateway, ENGINE)


def test_gateway_dies_while_it_starts(app, tmp_path):
    """Again and again, while it reads the log, begins a segment, and writers come back: what was acknowledged is there."""
    with Gateway(config(app, routes=[route("s", alarm="/alarm")]), folder=tmp_path) as g:
        fill(g, 50)
        stop, acked = threading.Event(), []
        threads = [threading.Thread(target=write_on, args=(g, stop, acked, i)) for i in range(4)]
        for t in threads:
            t.start()
        try:
            for _ in range(6):
                old = g.gateway_pid()
                with contextlib.suppress(ProcessLookupError):
                    os.kill(old, 9)
                wait_for(lambda old=old: g.gateway_pid() not in (None, old))
                time.sleep(random.random() * 0.3)
            g.wait_ready()
            done = len(acked)
            wait_for(lambda: len(acked) > done + 5)
        finally:
            stop.set()
            for t in threads:
                t.join()
        for cookies, n in acked:
            assert Visitor(g, cookies=cookies).state()["n"] == n
    store("check", "--store", f"journal:{tmp_path}/state")


# ---- limits ----


def test_full_memory(gateway, app):
    """limits.store-memory is used up: updates are refused, reads go on, ends are possible and make room."""
    g = gateway(config(app, limits={"store-memory": "1MiB"}))
    visitors, refusal = [], None
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
    assert 200 < len(visitors) < 270
    assert metric(g, "stateway_store_used_bytes") > 0.99 * metric(g, "stateway_store_map_bytes")
    assert metric(g, "stateway_store_failures_total") >= 1
    assert visitors[0].set({"x": "z" * 3900}).status == 200  # of no greater length
    assert visitors[0].state() == {"x": "z" * 3900}
    g.kill_gateway()  # all of it is loaded again
    for visitor in visitors[1], visitors[-1]:
        assert visitor.state() == {"x": "y" * 3900}
    assert visitors[1].delete().status == 200
    assert visitors[2].delete().status == 200
    assert Visitor(g).set({"x": "y" * 3900}).status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_full_disk(gateway, app, tmp_path):
    """A tiny tmpfs that somebody else fills: 503, reads go on; room again: writes go on. Nothing acknowledged is lost."""
    place = tmp_path / "tiny"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", place], capture_output=True,
                      check=False).returncode != 0:
        pytest.skip("mount is not allowed here")
    try:
        g = gateway(config(app, store=f"journal:{place}/state", keys={"file": f"{tmp_path}/keys.json"}))
        first = Visitor(g)
        assert first.set({"x": 1}).status == 200
        ballast = place / "ballast"
        wait_for(lambda: (place / "state" / "spare").exists())
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as out:
            while True:
                out.write(b"\0" * 4096)
        crowd, refusals = [], 0
        for _ in range(1500):
            visitor = Visitor(g)
            got = visitor.set({"x": "y" * 3900})
            if got.status == 200:
                crowd.append(visitor)
            else:
                assert (got.status, got.get("stateway-error")) == (503, "commit-failed")
                refusals += 1
                if refusals == 5:
                    break
        assert refusals == 5 and len(crowd) > 20
        assert first.state() == {"x": 1}
        assert crowd[0].delete().status == 200  # what is left of the segment is for ends
        store("check", "--store", f"journal:{place}/state")
        _, err = store("backup", place / "copy", "--store", f"journal:{place}/state", code=1)
        assert "No space left" in err and not list(place.glob("copy*"))
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


# ---- folders ----


def test_a_folder_of_the_other_kind(app, tmp_path):
    """Each store refuses the other's folder, says which one it is, and changes nothing."""
    with Gateway(config(app), folder=tmp_path) as g:
        visitor = Visitor(g)
        visitor.set({"n": 1})
    refused(app, tmp_path, "the folder holds a journal store", f"write journal:{tmp_path}/state",
            store=f"lmdb:{tmp_path}/state")
    _, err = store("check", "--store", f"lmdb:{tmp_path}/state", code=1)
    assert f"write journal:{tmp_path}/state" in err
    with Gateway(config(app), folder=tmp_path) as g:
        assert Visitor(g, cookies=visitor.cookies).state() == {"n": 1}
    other = tmp_path / "other"
    other.mkdir()
    with Gateway(config(app, store=f"lmdb:{other}/state"), folder=other) as g:
        visitor = Visitor(g)
        visitor.set({"n": 2})
    refused(app, other, "the folder holds an lmdb store", f"write lmdb:{other}/state", store=f"journal:{other}/state")
    with Gateway(config(app, store=f"lmdb:{other}/state"), folder=other) as g:
        assert Visitor(g, cookies=visitor.cookies).state() == {"n": 2}


def test_second_process(app, tmp_path):
    other = tmp_path / "second"
    other.mkdir()
    with Gateway(config(app), folder=tmp_path) as g:
        visitor = Visitor(g)
        assert visitor.set({"n": 1}).status == 200
        before = fingerprint(tmp_path / "state")
        refused(app, other, "has it open", f"process {g.gateway_pid()}", "stop that one, or name another folder",
                store=f"journal:{tmp_path}/state", keys={"file": f"{tmp_path}/keys.json"})
        assert fingerprint(tmp_path / "state") == before
        assert visitor.state() == {"n": 1}


def test_its_flag_and_its_thread(app, tmp_path):
    """--store wins over the file; the committer's thread has the name by which its cost is measured."""
    with Gateway({"apps": {"o": {"servers": [app]}}, "routes": [route("s")], "store": "memory:", "sync": "no"},
                 folder=tmp_path) as g:
        g.stop()
        args = [*g.args, "--store", f"journal:{tmp_path}/flag"]
        with Gateway(args=args, folder=tmp_path, ready=False) as flagged:
            flagged.config = g.config
            flagged.wait_ready()
            assert Visitor(flagged).set({"n": 1}).status == 200
            tasks = f"/proc/{flagged.gateway_pid()}/task"
            names = [open(f"{tasks}/{t}/comm", encoding="ascii").read().strip() for t in os.listdir(tasks)]
            assert names.count("store") == 1 and flagged.admin("GET", "/v1/status").json()["store"]["kind"] == "journal"
    assert list((tmp_path / "flag").glob("*.journal"))
