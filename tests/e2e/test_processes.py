"""Supervisor, gateway process, instances: who survives whom, and that nobody is left behind."""
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

from harness import (BINARY, Gateway, Raw, alive, app_command, free_port, sanitized, stateway, stat_of,
                     wait_for)


def one_app(command=None, state="none", **app):
    return {"apps": {"shop": {"command": command or app_command(), "replicas": 2, **app}},
            "routes": [{"path": "/*", "app": "shop", "state": state}]}


def asked_in_background(gateway, path):
    """Asks, and hands the answer over in a list once it is there."""
    answers = []

    def ask():
        try:
            answers.append(gateway.get(path, timeout=60))
        except (OSError, EOFError) as e:
            answers.append(e)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    time.sleep(0.3)
    return answers, thread


# ---- one of them is killed ----


def test_gateway_killed(gateway, engine):
    g = gateway(one_app(), engine=engine)
    instances = g.instances()
    assert sorted(instances) == ["shop/1", "shop/2"]
    for _ in range(3):
        seconds = g.kill_gateway()
        assert seconds < (5 if sanitized() else 1)
        assert g.instances() == instances
        assert g.get("/").status == 200
        time.sleep(1.1)  # it lived for a second: the next restart is immediate again
    assert "starting it again" in g.log()


def test_listeners_live_on_without_a_gateway(gateway, engine):
    """Whoever connects while there is no gateway process waits, and is served by the next one."""
    g = gateway(one_app(), engine=engine)
    pid = g.gateway_pid()
    os.kill(g.pid, signal.SIGSTOP)  # so that there is time to look
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid))
    with Raw(g.address) as raw:
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        os.kill(g.pid, signal.SIGCONT)
        assert raw.read().status == 200


def test_gateway_killed_again_and_again(gateway):
    g = gateway(one_app())
    instances = g.instances()
    for _ in range(6):
        pid = wait_for(g.gateway_pid)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: g.gateway_pid() not in (None, pid))
    g.wait_ready()
    assert g.get("/").status == 200
    assert g.instances() == instances


def test_instance_killed(gateway):
    g = gateway(one_app())
    old = g.instances()
    os.kill(old["shop/1"], signal.SIGKILL)
    for _ in range(20):
        assert g.get("/").status == 200  # nobody notices
    new = wait_for(lambda: "shop/1" in g.instances() and g.instances()["shop/1"] != old["shop/1"] and g.instances())
    assert new["shop/2"] == old["shop/2"]
    assert "shop/1 (pid" in g.log()


def test_children_of_an_instance_end_with_it(gateway):
    g = gateway(one_app(replicas=1))
    child = int(g.get("/child").body)
    assert alive(child)
    os.kill(g.instances()["shop/1"], signal.SIGKILL)
    wait_for(lambda: not alive(child))


@pytest.mark.parametrize("guard_first", [False, True])
def test_supervisor_killed(guard_first):
    g = Gateway(one_app())
    try:
        everybody = set(g.instances().values()) | {g.gateway_pid()}
        everybody |= {int(g.get("/daemon").body), int(g.get("/child").body)}
        guard = g.guard_pid()
        if guard_first:
            os.kill(guard, signal.SIGKILL)
            guard = wait_for(lambda: g.guard_pid() not in (None, guard) and g.guard_pid())
        assert all(alive(pid) for pid in everybody)
        os.kill(g.pid, signal.SIGKILL)
        g.process.wait()
        wait_for(lambda: not any(alive(pid) for pid in everybody | {guard}), 5,
                 f"{[(p, stat_of(p)) for p in everybody | {guard}]}")
        assert g.nobody_left()
        with socket.socket() as probe:  # the address is free at once
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(g.address)
    finally:
        g.discard()


def test_supervisor_and_gateway_killed_together():
    g = Gateway(one_app())
    try:
        everybody = set(g.instances().values()) | {g.gateway_pid(), g.guard_pid()}
        os.kill(g.pid, signal.SIGSTOP)
        os.kill(g.gateway_pid(), signal.SIGKILL)
        os.kill(g.pid, signal.SIGKILL)
        g.process.wait()
        wait_for(lambda: not any(alive(pid) for pid in everybody), 5)
    finally:
        g.discard()


def test_daemons_end_at_stop(gateway):
    g = gateway(one_app())
    daemon = int(g.get("/daemon").body)
    assert alive(daemon)
    assert g.stop() == 0
    g.check()
    assert not alive(daemon)


# ---- ending in order ----


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT])
def test_running_exchanges_are_finished(gateway, engine, signo):
    g = gateway(one_app(), engine=engine)
    answers, thread = asked_in_background(g, "/slow/1.5")
    assert g.stop(signo) == 0
    thread.join(5)
    assert answers[0].status == 200
    g.check()


def test_second_interrupt_ends_at_once(gateway):
    g = gateway(one_app())
    answers, thread = asked_in_background(g, "/slow/60")
    g.process.send_signal(signal.SIGINT)
    g.wait_log("SIGINT: stopping")
    started = time.monotonic()
    assert g.stop(signal.SIGINT) == 0
    assert time.monotonic() - started < 3
    thread.join(5)
    assert not hasattr(answers[0], "status")
    assert g.nobody_left()


def test_app_that_ignores_sigterm_is_killed(gateway):
    g = gateway(one_app(app_command("--deaf")))
    started = time.monotonic()
    assert g.stop() == 0
    assert 4 < time.monotonic() - started < 10
    assert "did not end in time: killing it" in g.log()
    g.check()


def test_hangup_is_only_told(gateway):
    g = gateway(one_app())
    g.process.send_signal(signal.SIGHUP)
    g.wait_log("reload is not in this version")
    assert g.get("/").status == 200


# ---- what cannot be started ----


def test_command_missing(gateway):
    g = gateway(one_app(["no-such-command-here"]), ready=False)
    g.wait_log("cannot run no-such-command-here: not found in PATH; see `command` of app shop")
    assert g.stop() == 0
    g.check()


def test_directory_missing(gateway):
    g = gateway(one_app(directory="/no/such/folder"), ready=False)
    g.wait_log("cannot enter its folder /no/such/folder: No such file or directory")
    assert g.stop() == 0


@pytest.mark.parametrize("shares", [False, True])
def test_address_in_use(shares):
    with socket.socket() as other:
        if shares:  # without a closer look, two that ask for it would each get half of the visitors
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = "127.0.0.1:%d" % other.getsockname()[1]
        done = stateway("run", "--state", "none", "--listen", address, "--", "sleep", "100")
    assert done.returncode == 3
    assert f"cannot listen on {address}: the address is in use" in done.stderr
    assert "choose another address" in done.stderr


def test_second_stateway_on_the_same_address(gateway):
    g = gateway(one_app())
    address = g.config["listen"][0]["address"]
    done = stateway("run", "--state", "none", "--listen", address, "--admin", "off", "--", "sleep", "100")
    assert done.returncode == 3
    assert address in done.stderr
    assert g.get("/").status == 200


def test_store_folder_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "state"  # also root cannot make a folder in a file
    done = stateway("run", "--state", "session", "--store", f"lmdb:{folder}", "--listen",
                    f"127.0.0.1:{free_port()}", "--admin", "off", "--", "sleep", "100")
    assert done.returncode == 3
    assert str(folder) in done.stderr


def test_store_locked(gateway, tmp_path):
    store = f"lmdb:{tmp_path}/state"
    g = gateway(dict(one_app(state="session"), store=store))
    done = stateway("run", "--state", "session", "--store", store, "--listen", f"127.0.0.1:{free_port()}",
                    "--admin", "off", "--", "sleep", "100")
    assert done.returncode == 3
    assert str(tmp_path) in done.stderr
    assert g.get("/").status == 200


# ---- what apps are told, and what they print ----


def test_environment(gateway):
    g = gateway(one_app(environment={"GREETING": "hello"}, replicas=1))
    assert g.get("/environment/GREETING").body == b"hello"
    assert g.get("/environment/STATEWAY_INSTANCE").body == b"shop/1"
    assert len(g.get("/environment/STATEWAY_INCARNATION").body) == 16
    assert g.apps()["shop"][0]["incarnation"] == g.get("/environment/STATEWAY_INCARNATION").body.decode()
    assert 20000 <= int(g.get("/environment/PORT").body) < 30000


def test_unix_socket_of_an_app(gateway):
    g = gateway(one_app(app_command("--socket", "{socket}"), replicas=1))
    assert g.get("/environment/PORT").body == b"-"
    address = g.apps()["shop"][0]["address"]
    assert address.startswith("unix:")
    folder = os.path.dirname(address[5:])
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert g.stop() == 0
    assert not os.path.exists(folder)


def test_output_is_named(gateway):
    g = gateway(one_app(replicas=1))
    g.get("/print/good-morning")
    g.wait_log("shop/1 | good-morning\n")
    assert "good-morning" in g.out.read_text()


def test_output_flood(gateway):
    """Hundreds of megabytes from an app: it is not stopped for long, nothing grows, all is served."""
    g = gateway(one_app(replicas=1))

    def resident_kib():
        with open(f"/proc/{g.pid}/status") as f:
            return int(next(line for line in f if line.startswith("VmRSS")).split()[1])

    before = resident_kib()
    answers, thread = asked_in_background(g, "/flood/100000")
    for _ in range(20):
        assert g.get("/").status == 200
    thread.join(60)
    assert answers[0].status == 200
    assert resident_kib() - before < 32 * 1024
    lines = [line for line in g.out.read_text().splitlines() if "xxxx" in line]
    assert all(line == "shop/1 | " + "x" * 999 for line in lines)
    assert len(lines) == 100000
    g.out.write_text("")


@pytest.mark.parametrize("access", ["off", "stdout"])
def test_nobody_reads_our_output(tmp_path, access):
    """The pipe of whoever started us is full: apps are served all the same, and we end when told."""
    port, admin = free_port(), free_port()
    process = subprocess.Popen(
        [BINARY, "run", "--state", "none", "--replicas", "1", "--listen", f"127.0.0.1:{port}", "--admin",
         f"127.0.0.1:{admin}", "--access-log", access, "--", *[a.replace("$$", "$") for a in app_command()]],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path)
    try:
        def healthy():
            try:
                with Raw(("127.0.0.1", admin)) as raw:
                    return raw.request("GET", "/readyz").status == 200
            except OSError:
                return False
        wait_for(healthy)
        with Raw(("127.0.0.1", port), timeout=30) as raw:
            assert raw.request("GET", "/flood/20000").status == 200
            assert raw.request("GET", "/").status == 200
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_flags_instead_of_a_file(gateway, tmp_path):
    port, admin = free_port(), free_port()
    g = gateway(args=["run", "--state", "session", "--replicas", "2", "--listen", f"127.0.0.1:{port}",
                      "--admin", f"127.0.0.1:{admin}", "--store", f"lmdb:{tmp_path}/state", "--workers", "1",
                      "--access-log", "off", "--", *[a.replace("$$", "$") for a in app_command()]])
    g.wait_log("ready: http://127.0.0.1:%d; admin http://127.0.0.1:%d; 1 worker" % (port, admin))
    assert sorted(g.instances()) == ["app/1", "app/2"]
    with Raw(("127.0.0.1", port)) as raw:
        assert raw.request("GET", "/environment/STATEWAY_INSTANCE").body in (b"app/1", b"app/2")
