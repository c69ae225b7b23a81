"""The command line: help, checks, exit codes, the demo, and the commands that ask the admin API."""
import json
import os
import re
import shutil
import signal
import subprocess

import pytest

from harness import (BINARY, REPORTS, ROOT, SHOP, Raw, alive, app_command, children_of, free_port, stateway,
                     wait_for)

COMMANDS = ["run", "check", "demo", "status", "roll", "drain", "undrain", "kill", "sessions", "store"]
GOOD = """apps:
  shop: { command: [node, server.js] }
  legacy: { servers: ["127.0.0.1:9", { address: "127.0.0.1:10", weight: 2 }] }
routes:
  - { path: /*, app: shop, state: session }
  - { path: "/cart/{id}/*", app: shop, state: session, session: { key: path.id } }
  - { path: /legacy/*, app: legacy, state: sticky, methods: [GET, POST], strip: /legacy }
"""


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "stateway.yaml"
    path.write_text(GOOD)
    return path


# ---- help and usage ----


def test_version():
    for word in ("version", "--version", "-V"):
        done = stateway(word)
        assert done.returncode == 0
        assert re.fullmatch(r"stateway \d+\.\d+\.\d+\n", done.stdout)


def test_help():
    overview = stateway("--help")
    assert overview.returncode == 0
    for command in COMMANDS:
        assert f"\n  {command} " in overview.stdout
        texts = {stateway(*words).stdout
                 for words in ([command, "--help"], [command, "-h"], ["help", command])}
        assert len(texts) == 1
        assert texts.pop().startswith(f"usage: stateway {command} ")
    assert "\n  gateway " not in overview.stdout
    assert all(len(line) <= 100 for line in overview.stdout.splitlines())


@pytest.mark.parametrize("words, text", [
    ([], "usage: stateway COMMAND"),
    (["rnu"], 'there is no command "rnu"; did you mean "run"?'),
    (["xyzzy"], 'there is no command "xyzzy"; `stateway --help` lists them'),
    (["run"], "what to run?"),
    (["run", "--sate", "none"], "there is no flag --sate; did you mean --state?"),
    (["run", "--state"], "--state needs a value"),
    (["run", "--state", "cookie"], '--state takes none|sticky|session, not "cookie"'),
    (["run", "--state=none", "--state=none", "--", "a"], "--state is there twice"),
    (["run", "--", "node"], "where does the app's state live?"),
    (["run", "--state", "none", "node"], '"node" stands alone; a command goes behind --'),
    (["run", "--state", "none", "--server", "1.2.3.4:5", "--", "node"], "a command or servers, not both"),
    (["run", "--state", "none", "--server", "1.2.3.4:5", "--replicas", "2"], "--replicas goes with a command"),
    (["run", "--state", "none", "--replicas", "many", "--", "a"], '--replicas takes a number from 1 to 64, not "many"'),
    (["run", "--state", "none", "--workers", "0", "--", "a"], "--workers takes a number from 1 to"),
    (["run", "-x"], "there is no flag -x"),
    (["check", "-c", "x", "--print=yes"], "--print takes no value"),
    (["check", "-c", "x", "--explain"], "--explain takes [METHOD] URL"),
    (["demo", "now"], "it takes flags only"),
    (["drain", "shop"], "it takes one name: APP/N"),
    (["roll", "shop/1"], "it takes one name: APP"),
    (["kill", "shop/1\r\nX: y"], "it takes one name: APP/N"),
    (["status", "--admin", "nowhere"], "is no address"),
    (["gateway"], "the supervisor starts this"),
])
def test_wrong_usage(words, text):
    done = stateway(*words)
    assert done.returncode == 2
    assert text in done.stderr
    assert done.stdout == ""


def test_flags_that_do_not_go_with_a_file(good):
    for words in (["--state", "none"], ["--replicas", "2"], ["--server", "1.2.3.4:5"], ["--", "node"]):
        done = stateway("run", "-c", good, *words)
        assert done.returncode == 2
        assert "does not go with a file" in done.stderr


def test_output_that_cannot_be_written():
    with open("/dev/full", "w") as full:
        done = subprocess.run([BINARY, "--help"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1


# ---- check ----


def test_check_good(good):
    for words in (["-c", good], ["--config", good], [f"--config={good}"], [good]):
        done = stateway("check", *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{good}: in order; 2 apps, 3 routes\n"


def test_check_tells_everything(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("apps:\n  shop: { comand: [node] }\nroutes:\n  - { path: cart, app: shpo, state: nowhere }\n")
    for command in ("check", "run"):
        done = stateway(command, "-c", path)
        assert done.returncode == 1
        lines = done.stderr.splitlines()
        assert len(lines) >= 3
        for line in lines:
            assert re.match(re.escape(str(path)) + r":\d+:\d+: .", line), line
        assert any(line.startswith(f"{path}:2:11: ") and "`command`" in line for line in lines)


def test_check_ambiguous_routes(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text('apps: { a: { servers: ["127.0.0.1:9"] } }\nroutes:\n'
                    "  - { path: /x/*, app: a }\n  - { path: /x/*, app: a }\n")
    done = stateway("check", "-c", path)
    assert done.returncode == 1
    assert "line 3" in done.stderr and "line 4" in done.stderr


def test_file_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        done = stateway("run", "-c", path)
        assert done.returncode == 1
        assert str(path) in done.stderr


def test_flags_are_checked_like_a_file():
    done = stateway("check", "--state", "none", "--listen", "127.0.0.1:http", "--", "node")
    assert done.returncode == 1
    assert re.match(r"command line:\d+:\d+: .*127\.0\.0\.1:http", done.stderr)


def test_overrides_are_checked(good):
    done = stateway("check", "-c", good, "--listen", "nowhere")
    assert done.returncode == 1
    assert "--listen" in done.stderr


def test_print_is_a_configuration(good, tmp_path):
    """What is printed may be written to a file, and means the same."""
    first = stateway("check", "-c", good, "--print").stdout
    again = tmp_path / "again.yaml"
    again.write_text(first)
    done = stateway("check", "-c", again, "--print")
    assert done.stderr == ""
    assert done.stdout == first
    assert "idle: 30m" in first


def test_print_leaves_secrets_out(tmp_path):
    path = tmp_path / "secret.yaml"
    path.write_text(GOOD.replace("[node, server.js]", "[node], environment: { PASSWORD: '${SECRET}' }") +
                    "admin: { address: 127.0.0.1:9000, token: '${SECRET}' }\n")
    done = stateway("check", "-c", path, "--print", env={"SECRET": "open-sesame"})
    assert done.returncode == 0
    assert "open-sesame" not in done.stdout
    assert "PASSWORD" in done.stdout


def test_flags_equal_the_shortest_file(tmp_path):
    path = tmp_path / "short.yaml"
    path.write_text("apps:   { app: { command: [node, 'server.js', '$${HOME} \"x\" \\'] } }\n"
                    "routes: [ { path: /*, app: app, state: session } ]\n")
    flags = stateway("check", "--print", "--state", "session", "--", "node", "server.js", '${HOME} "x" \\')
    file = stateway("check", "-c", path, "--print")
    assert flags.stdout == file.stdout != ""


@pytest.mark.parametrize("words, texts", [
    (["http://shop.example/cart/7/items?x=1#y"], ["/cart/{id}/*", "session"]),
    (["POST", "/legacy/x"], ["/legacy/*", "sticky"]),
    (["DELETE", "https://a:8443/legacy/x"], ["/*"]),
])
def test_explain(good, words, texts):
    done = stateway("check", "-c", good, "--explain", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(text in done.stdout for text in texts)
    assert done.stdout.endswith("\n")


def test_explain_refuses_what_no_client_may_send(good):
    assert stateway("check", "-c", good, "--explain", "ftp://x/").returncode == 2
    done = stateway("check", "-c", good, "--explain", "GET", "/a b")
    assert done.returncode == 1
    assert "no client may ask" in done.stderr


# ---- asking a running one ----


def running(gateway, **config):
    return gateway(dict({"apps": {"shop": {"command": app_command(), "replicas": 2}},
                         "routes": [{"path": "/*", "app": "shop"}]}, **config))


def test_commands_of_the_admin_api(gateway):
    g = running(gateway)
    where = ["--admin", g.config["admin"]["address"]]
    table = stateway("status", *where).stdout
    assert re.search(r"^shop/1 +healthy +%d " % g.instances()["shop/1"], table, re.M)
    assert stateway("status", "shop", "-c", g.file).stdout.count("shop/") == 2
    assert stateway("status", "nothing", *where).returncode == 1

    done = stateway("drain", "shop/1", *where)
    assert (done.returncode, done.stderr) == (0, "")
    g.wait_log("shop/1 drains")
    assert stateway("undrain", "shop/1", *where).returncode in (0, 1)  # nobody was bound: it may be gone
    wait_for(lambda: sorted(g.instances()) == ["shop/1", "shop/2"])

    before = g.instances()["shop/2"]
    assert stateway("kill", "shop/2", *where).returncode == 0
    wait_for(lambda: g.instances().get("shop/2") not in (None, before))

    done = stateway("kill", "shop/9", *where)
    assert done.returncode == 1
    assert "no such instance" in done.stderr
    assert stateway("roll", "nothing", *where).returncode == 1


def test_roll(gateway):
    g = running(gateway)
    before = g.instances()
    assert stateway("roll", "shop", "-c", g.file).returncode == 0
    wait_for(lambda: len(g.instances()) == 2 and not set(g.instances().values()) & set(before.values()), 30)
    assert g.get("/").status == 200


def test_admin_token(gateway):
    g = running(gateway, admin={"address": f"127.0.0.1:{free_port()}", "token": "open-sesame"})
    where = ["--admin", g.config["admin"]["address"]]
    done = stateway("status", *where)
    assert done.returncode == 1
    assert "--token" in done.stderr
    assert stateway("status", *where, "--token", "open-sesame").returncode == 0
    assert stateway("status", *where, env={"STATEWAY_ADMIN_TOKEN": "open-sesame"}).returncode == 0
    assert stateway("status", "-c", g.file).returncode == 0


def test_admin_on_a_unix_socket(gateway, tmp_path):
    g = running(gateway, admin={"address": f"unix:{tmp_path}/admin.sock"})
    assert "shop/1" in stateway("status", "-c", g.file).stdout
    assert g.stop() == 0
    g.check()
    assert not (tmp_path / "admin.sock").exists()


def test_nobody_answers():
    done = stateway("status", "--admin", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "nobody answers" in done.stderr


# ---- the demonstration ----


def test_demo(tmp_path):
    if not SHOP.exists():
        pytest.skip("apps/shop is not built")
    port, admin = free_port(), free_port()
    with open(tmp_path / "log", "w+") as log:
        process = subprocess.Popen([BINARY, "demo", "--listen", f"127.0.0.1:{port}", "--admin",
                                    f"127.0.0.1:{admin}"], stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path)
        try:
            wait_for(lambda: f"    http://127.0.0.1:{port}/\n" in (tmp_path / "log").read_text(), 30)
            everybody = children_of(process.pid)
            cookies = {}
            for mount in ("none", "sticky", "session"):
                with Raw(("127.0.0.1", port)) as raw:
                    answer = raw.request("POST", f"/{mount}/cart/items?item=tea",
                                         [("Origin", f"http://127.0.0.1:{port}"), ("Host", f"127.0.0.1:{port}")], b"")
                    assert answer.status == 200, (mount, answer)
                    assert answer.get("stateway-verdict"), mount
                    cookies[mount] = answer.cookies()
            with Raw(("127.0.0.1", port)) as raw:
                assert raw.request("GET", "/").status == 200
                state = raw.request("GET", "/control/v1/apps", [("Stateway-Admin", "1")])
                assert [app["name"] for app in json.loads(state.body)["apps"]] == ["shop", "control"]
            files = [os.path.realpath(f"/proc/{pid}/fd/{fd}") for pid in everybody
                     for fd in os.listdir(f"/proc/{pid}/fd")]
            folder = next(os.path.dirname(file) for file in files if "/stateway-demo-" in file)
            assert os.stat(folder).st_mode & 0o777 == 0o700
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
            assert not any(alive(pid) for pid in everybody)
            assert not os.path.exists(folder)
            text = (tmp_path / "log").read_text()
            assert not REPORTS.search(text), text
            assert os.listdir(tmp_path) == ["log"]
        finally:
            process.kill()
            process.wait()


def test_demo_with_a_store_of_ones_own(tmp_path):
    if not SHOP.exists():
        pytest.skip("apps/shop is not built")
    process = subprocess.Popen([BINARY, "demo", "--listen", f"127.0.0.1:{free_port()}", "--admin", "off", "--store",
                                tmp_path / "kept"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        while b"Ctrl-C" not in process.stdout.readline():
            assert process.poll() is None
        process.terminate()
        process.stdout.read()
        assert process.wait(30) == 0
        assert (tmp_path / "kept").is_dir()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_demo_where_the_address_is_taken(gateway):
    g = running(gateway)
    done = stateway("demo", "--listen", g.config["listen"][0]["address"])
    assert done.returncode == 3
    assert "the address is in use" in done.stderr


# ---- the manual pages say what the program says ----


def test_manual_has_every_command_and_flag():
    page = (ROOT / "docs/man/stateway.1").read_text()
    for command in COMMANDS:
        assert re.search(rf"^\.(It )?Cm .*\b{command}\b", page, re.M), command
        for flag in re.findall(r"--([a-z-]+)", stateway(command, "--help").stdout):
            assert re.search(rf"Fl Fl {flag}\b", page) or flag == "", (command, flag)


def test_manual_has_every_key():
    page = (ROOT / "docs/man/stateway.yaml.5").read_text()
    keys = re.findall(r'^KEY\("([^"]+)"', (ROOT / "src/config/schema.def").read_text(), re.M)
    assert len(keys) > 50
    assert re.findall(r"^\.It Cm (\S+)$", page, re.M) == keys


def test_manual_is_well_formed():
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    done = subprocess.run(["mandoc", "-Tlint", "-Wwarning", *sorted((ROOT / "docs/man").iterdir())],
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
