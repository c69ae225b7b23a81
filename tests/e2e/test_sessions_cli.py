"""Sessions for operators: visitors who are logged in, listed, ended, and carried over to another store; by
the admin API and by `stateway sessions`.
"""
import base64
import json
import re
import subprocess
import threading
import time
import urllib.parse

import pytest

import harness
from harness import BINARY, Gateway, Origin, Raw, answer, free_port, stateway, wait_for
from test_session import respond, script

GUARD = ("Stateway-Admin", "1")
LINES = ("Content-Type", "application/x-ndjson")
ROUTES = [
    {"path": "/s/*", "app": "o", "state": "session", "expose": ["verdict"]},
    {"path": "/cas/*", "app": "o", "state": "session", "expose": ["verdict"],
     "session": {"concurrency": "cas"}},
    {"path": "/last/*", "app": "o", "state": "session", "expose": ["verdict"],
     "session": {"concurrency": "last"}},
    {"path": "/room/{room}/*", "app": "o", "state": "session", "expose": ["verdict"],
     "session": {"key": "path.room"}},
]


class Browser:
    """Keeps its cookie; login, a visit, a write."""

    def __init__(self, gateway, base="/s"):
        self.gateway, self.base, self.cookies = gateway, base, {}

    def ask(self, method="POST", send=(), gateway=None, **what):
        pairs = [("X-Answer", script(headers=list(send), **what))]
        if self.cookies:
            pairs.append(("Cookie", "; ".join(f"{k}={v}" for k, v in self.cookies.items())))
        got = (gateway or self.gateway).request(method, self.base + "/", pairs,
                                                b"" if method == "POST" else None)
        for line in got.all("set-cookie"):
            name, _, value = line.split(";", 1)[0].partition("=")
            if "max-age=0" in line.lower():
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return got

    def login(self, name, **state):
        got = self.ask(send=[("Stateway-Set", json.dumps({"user": name, **state})),
                             ("Stateway-Subject", name)])
        assert got.status == 200, got
        return self

    def state(self, gateway=None):
        got = self.ask("GET", gateway=gateway)
        assert got.status == 200, got
        told = dict(json.loads(got.body)["headers"])
        return json.loads(told["stateway-state"]) if "stateway-state" in told else None


@pytest.fixture
def world(origin):
    """world() starts a gateway before an app that answers as told; each has a store of its own."""
    app = origin(respond)
    running = []

    def start(engine=None, **config):
        g = Gateway({"apps": {"o": {"servers": [app.address]}}, "routes": ROUTES, **config}, engine=engine)
        running.append(g)
        return g

    yield start
    for g in reversed(running):
        if g.exit_code is None:
            g.close()


def admin(g, method, path, headers=(), body=None):
    with Raw(g.admin_address) as raw:
        return raw.request(method, path, [GUARD, ("Connection", "close"), *headers], body)


def listed(g, **query):
    got = admin(g, "GET", "/v1/sessions?" + urllib.parse.urlencode(query))
    assert got.status == 200, got
    return got.json()


def sessions(g, *words, **options):
    return stateway("sessions", *words, "--admin", g.config["admin"]["address"], **options)


# ---- ended by subject ----


def test_a_subject_is_ended_in_every_browser(world, engine):
    g = world(engine)
    first, second = Browser(g).login("alice"), Browser(g).login("alice")
    other, nobody = Browser(g).login("bob"), Browser(g)
    nobody.ask(send=[("Stateway-Set", '{"cart":1}')])
    assert [s["subject"] for s in listed(g, subject="alice")["sessions"]] == ["alice", "alice"]
    assert len(listed(g)["sessions"]) == 4
    assert admin(g, "GET", "/v1/subjects/alice").json()["sessions"] == 2

    got = admin(g, "DELETE", "/v1/subjects/alice")
    assert (got.status, got.json()["ended"]) == (200, 2)
    for browser in (first, second):
        assert browser.state() is None
    assert other.state() == {"user": "bob"}
    assert nobody.state() == {"cart": 1}
    assert listed(g, subject="alice")["sessions"] == []

    # Her next login is a new session, and the old cookies stay dead.
    again = Browser(g).login("alice")
    assert again.state() == {"user": "alice"}
    assert first.state() is None
    assert admin(g, "GET", "/v1/subjects/alice").json()["sessions"] == 1
    assert "alice" not in re.sub(r"X-Answer.*", "", g.log())  # the log names no subject


@pytest.mark.parametrize("base", ["/cas", "/last", "/s"])
@pytest.mark.parametrize("how", ["subject", "handle"])
def test_what_was_ended_while_a_slow_request_runs_never_comes_back(world, base, how):
    g = world("epoll")
    browser = Browser(g, base).login("alice", n=1)
    handle = listed(g)["sessions"][0]["handle"]
    slow = {}
    thread = threading.Thread(target=lambda: slow.update(got=browser.ask(
        send=[("Stateway-Set", '{"user":"alice","n":2}')], delay=1.0)))
    thread.start()
    time.sleep(0.4)
    path = "/v1/subjects/alice" if how == "subject" else f"/v1/sessions/{handle}"
    assert admin(g, "DELETE", path).status in (200, 204)
    thread.join()
    assert slow["got"].status == 409, slow["got"]
    assert browser.state() is None
    assert listed(g)["sessions"] == []
    # nor does a later write of the same browser bring back what was there
    got = browser.ask(send=[("Stateway-Patch", '{"new":1}')])
    assert got.status == 200, got
    assert browser.state() == {"new": 1}


def test_an_ended_entity_can_be_made_anew(world):
    g = world("epoll")
    room = Browser(g, "/room/42")
    room.ask(send=[("Stateway-Set", '{"n":1}')])
    handle = listed(g)["sessions"][0]["handle"]
    done = sessions(g, "end", handle, "--entity")
    assert (done.returncode, done.stdout) == (0, f"{handle}: ended\n")
    assert room.state() is None
    assert room.ask(send=[("Stateway-Set", '{"n":2}')]).status == 200
    assert room.state() == {"n": 2}


@pytest.mark.parametrize("subject", ["alice", "zoë", "a b&c=d/e?f%", "..", "\"x\"\\", "x" * 255])
def test_subjects_of_all_kinds(world, subject):
    g = world("epoll")
    sent = subject.encode().decode("latin-1")
    got = Browser(g).ask(send=[("Stateway-Set", "{}"), ("Stateway-Subject", sent)])
    if got.status != 200:
        pytest.skip(f"the app's answer may not name such a subject: {got.get('stateway-error')}")
    assert [s["subject"] for s in listed(g, subject=subject)["sessions"]] == [subject]
    done = sessions(g, "list", "--subject", subject, "--json")
    assert json.loads(done.stdout)["subject"] == subject
    done = sessions(g, "end", "--subject", subject)
    assert done.returncode == 0, done.stderr
    assert "ended 1 session\n" in done.stdout
    assert listed(g, subject=subject)["sessions"] == []


# ---- one session ----


def test_a_value_is_shown_and_replaced(world, engine):
    g = world(engine)
    browser = Browser(g).login("alice", n=1)
    handle = listed(g)["sessions"][0]["handle"]
    path = f"/v1/sessions/{handle}"
    shown = admin(g, "GET", path)
    assert shown.json()["value"] == {"user": "alice", "n": 1}
    assert shown.get("cache-control") == "no-store"
    tag = shown.get("etag")
    assert tag == f'"{shown.json()["version"]}"'
    put = [("Content-Type", "application/json"), ("If-Match", tag)]
    got = admin(g, "PUT", path, put, b'{"user":"alice","n":7}')
    assert got.status == 204 and got.get("etag") not in (None, tag)
    assert got.get("content-length") is None
    assert browser.state() == {"user": "alice", "n": 7}
    assert admin(g, "PUT", path, put, b'{"n":8}').status == 412
    assert listed(g, subject="alice")["sessions"][0]["handle"] == handle
    assert admin(g, "DELETE", path, [("If-Match", tag)]).status == 412
    assert admin(g, "DELETE", path).status == 204
    assert browser.state() is None
    assert admin(g, "GET", path).status == 404


def test_the_handle_opens_nothing(world):
    g = world("epoll")
    Browser(g).login("alice")
    handle = listed(g)["sessions"][0]["handle"]
    thief = Browser(g)
    thief.cookies = {"sid": handle}
    assert thief.state() is None


def test_pages(world):
    g = world("epoll")
    for n in range(25):
        Browser(g).login(f"user{n % 2}")
    handles, after = [], {}
    for _ in range(10):
        page = listed(g, limit=7, **after)
        handles += [s["handle"] for s in page["sessions"]]
        if page["after"] is None:
            break
        after = {"after": page["after"]}
    assert len(handles) == len(set(handles)) == 25
    done = sessions(g, "list", "--limit", "7")
    assert len(done.stdout.splitlines()) == 8
    assert "there are more than 7" in done.stderr
    done = sessions(g, "list", "--json", "--limit", "1000")
    assert [json.loads(line)["handle"] for line in done.stdout.splitlines()] == handles
    assert done.stderr == ""
    assert len(sessions(g, "list", "--subject", "user1").stdout.splitlines()) == 13


# ---- carried over ----


def test_sessions_are_carried_over_to_a_fresh_store(world, tmp_path, engine):
    old = world(engine)
    alice, bob = Browser(old).login("alice", text="zoë", n=1.10), Browser(old).login("bob")
    room = Browser(old, "/room/42")
    room.ask(send=[("Stateway-Set", '{"n":1}')])
    gone = Browser(old).login("carol")
    gone_cookies = dict(gone.cookies)
    gone.ask(send=[("Stateway-Delete", "?1")])
    file = tmp_path / "states.jsonl"
    done = sessions(old, "export", "-o", file)
    assert done.returncode == 0, done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["states.jsonl"]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(line["kind"] for line in lines).count("state") == 3

    new = world(engine)
    done = sessions(new, "import", file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{len(lines)} made, 0 replaced, 0 skipped")
    for browser, state in ((alice, {"user": "alice", "text": "zoë", "n": 1.1}), (bob, {"user": "bob"}),
                           (room, {"n": 1})):
        assert browser.state(gateway=new) == state
        browser.gateway = new
    gone.cookies = gone_cookies
    assert gone.state(gateway=new) is None
    # they go on there, as whose they are
    assert alice.ask(send=[("Stateway-Patch", '{"n":2}')]).status == 200
    assert alice.state()["n"] == 2
    assert admin(new, "DELETE", "/v1/subjects/alice").json()["ended"] == 1
    assert alice.state() is None
    assert bob.state() == {"user": "bob"}

    # Nothing is overwritten; what was ended stays ended, even by the hand that overwrites.
    done = sessions(new, "import", file)
    assert done.returncode == 1
    assert ": there is something under this handle, and it stays as it is" in done.stderr
    assert bob.state() == {"user": "bob"}
    bob.ask(send=[("Stateway-Set", '{"user":"bob","n":2}')])
    done = sessions(new, "import", file, "--replace")
    assert bob.state() == {"user": "bob"}
    assert alice.state() is None


def test_an_import_of_many(world, tmp_path):
    """Ten thousand lines in one request, while visitors go on."""
    g = world("epoll")
    browser = Browser(g).login("alice")
    file = tmp_path / "many.jsonl"
    far = int(time.time()) + 86400
    with open(file, "w") as out:
        for n in range(10000):
            handle = base64.urlsafe_b64encode(n.to_bytes(32, "big")).rstrip(b"=").decode()
            out.write(json.dumps({"handle": handle, "kind": "state", "subject": f"u{n % 10}", "expires": far,
                                  "absolute": far, "value": {"n": n, "pad": "x" * 200}}) + "\n")
    process = subprocess.Popen([str(BINARY), "sessions", "import", str(file), "--admin",
                                g.config["admin"]["address"]], stdout=subprocess.PIPE, text=True)
    slowest = 0.0
    while process.poll() is None:
        started = time.monotonic()
        assert browser.state() == {"user": "alice"}
        assert admin(g, "GET", "/healthz").status == 200
        slowest = max(slowest, time.monotonic() - started)
    assert process.stdout.read().startswith("10000 made, 0 replaced, 0 skipped")
    process.stdout.close()
    assert process.returncode == 0
    assert slowest < (10 if harness.sanitized() else 2)
    assert admin(g, "GET", "/v1/subjects/u3").json()["sessions"] == 1000
    assert admin(g, "DELETE", "/v1/subjects/u3").json()["ended"] == 1000
    done = sessions(g, "export")
    assert len(done.stdout.splitlines()) == 9001
    assert done.stderr == "stateway: 9001 records\n"


def test_a_broken_import_tells_where(world, tmp_path):
    g = world("epoll")
    file = tmp_path / "broken.jsonl"
    good = '{"handle":"%s","kind":"state","value":{"n":1}}\n' % ("A" * 43)
    file.write_text("\n" + good + "nonsense\n" + '{"handle":"x"}\n')
    done = sessions(g, "import", file)
    assert done.returncode == 1
    assert done.stdout.startswith("1 made, 0 replaced, 0 skipped")
    assert done.stderr.splitlines() == [
        f"{file}:3: this line is no JSON object",
        f"{file}:4: `handle` is no handle: 43 characters of base64url"]
    assert sessions(g, "import", "-", input=good).returncode == 1
    assert sessions(g, "import", "-", "--replace", "--json", input=good).stdout.startswith('{"created":0,"replaced":1,')
    assert sessions(g, "import", tmp_path / "nothing").returncode == 1
    assert sessions(g, "import", tmp_path).returncode == 1


def test_a_cut_export_leaves_no_file(world, tmp_path):
    """An export that breaks off in the middle is no file: neither whole nor in part."""
    far = {"expires": int(time.time()) + 86400}
    first = json.dumps({"handle": "A" * 43, "kind": "state", "value": {}, **far}).encode() + b"\n"

    def cut(asked, raw):
        raw.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(first), first))
        raw.close()

    with Origin(cut) as broken:
        done = stateway("sessions", "export", "-o", tmp_path / "x", "--admin", broken.address)
    assert done.returncode == 1
    assert "broke off" in done.stderr
    assert list(tmp_path.iterdir()) == []


# ---- who may ----


def test_a_token_is_asked_of_everything(world):
    g = world("epoll", admin={"address": f"127.0.0.1:{free_port()}", "token": "open-sesame"})
    Browser(g).login("alice")
    for method, path in (("GET", "/v1/sessions"), ("GET", "/v1/sessions/export"), ("GET", "/v1/subjects/alice"),
                         ("DELETE", "/v1/subjects/alice"), ("POST", "/v1/sessions/import")):
        got = admin(g, method, path, body=b"" if method == "POST" else None)
        assert got.status == 401, (method, path)
        assert b"alice" not in got.body
    done = sessions(g, "list")
    assert done.returncode == 1
    assert "--token" in done.stderr
    assert "alice" in sessions(g, "list", "--token", "open-sesame").stdout
    assert "alice" in stateway("sessions", "list", "-c", g.file).stdout


def test_pages_of_other_sites_see_nothing(world):
    g = world("epoll")
    Browser(g).login("alice")
    for path in ("/v1/sessions", "/v1/sessions/export", "/v1/subjects/alice"):
        for headers in ([("Sec-Fetch-Site", "cross-site")], [("Host", "rebound.example")],
                        [("Via", "1.1 gateway")]):
            got = admin(g, "GET", path, headers)
            assert got.status == 403, (path, headers)
            assert b"alice" not in got.body


def test_over_a_unix_socket(world, tmp_path):
    g = world("epoll", admin={"address": f"unix:{tmp_path}/admin"})
    Browser(g).login("alice")
    assert "alice" in stateway("sessions", "list", "-c", g.file).stdout


def test_without_a_store(origin):
    app = origin(respond)
    with Gateway({"apps": {"o": {"servers": [app.address]}},
                  "routes": [{"path": "/*", "app": "o", "state": "none"}]}) as g:
        for words in (["list"], ["export"], ["end", "--subject", "a"], ["show", "A" * 43]):
            done = sessions(g, *words)
            assert done.returncode == 1
            assert "there is no store" in done.stderr


# ---- the command line ----


def test_tables_for_people(world):
    g = world("epoll")
    Browser(g).login("alice", n=1)
    Browser(g).ask(send=[("Stateway-Set", "{}")])
    table = sessions(g, "list").stdout
    assert re.search(r"^HANDLE +SUBJECT +BYTES +TOUCHED +EXPIRES +ALARM$", table, re.M)
    assert re.search(r"^[A-Za-z0-9_-]{43}  alice +22 +\d+s ago +in \d+m  -$", table, re.M)
    assert re.search(r"^[A-Za-z0-9_-]{43}  - +2 ", table, re.M)
    handle = listed(g, subject="alice")["sessions"][0]["handle"]
    shown = sessions(g, "show", handle).stdout
    assert re.search(r"^subject +alice$", shown, re.M)
    assert re.search(r'^value +\{"user":"alice","n":1\}$', shown, re.M)
    assert json.loads(sessions(g, "show", handle, "--json").stdout)["value"] == {"user": "alice", "n": 1}
    done = sessions(g, "end", handle)
    assert (done.returncode, done.stdout) == (0, f"{handle}: ended\n")
    done = sessions(g, "end", handle)
    assert done.returncode == 1
    assert "no live state" in done.stderr
    assert json.loads(sessions(g, "end", "--subject", "alice", "--json").stdout)["ended"] == 0


def test_handles_that_look_like_flags(world):
    """One handle of 64 begins with a hyphen."""
    g = world("epoll")
    for key in (bytes([0xf8]) + bytes(31), bytes([0xfb, 0xe0]) + bytes(30)):
        handle = base64.urlsafe_b64encode(key).rstrip(b"=").decode()
        assert handle.startswith("-")
        line = json.dumps({"handle": handle, "kind": "state", "value": {"n": 1}}) + "\n"
        assert sessions(g, "import", "-", input=line).returncode == 0
        assert json.loads(sessions(g, "show", handle, "--json").stdout)["handle"] == handle
        assert sessions(g, "end", handle).returncode == 0


@pytest.mark.parametrize("words, text", [
    ([], "list, show, end, export or import"),
    (["lst"], 'did you mean "list"?'),
    (["list", "--limit", "0"], "--limit takes a number"),
    (["list", "--limit", "many"], "--limit takes a number"),
    (["show"], "takes one HANDLE"),
    (["show", "alice"], "takes one HANDLE"),
    (["end"], "takes one HANDLE"),
    (["end", "A" * 43, "--subject", "alice"], "a HANDLE, or --subject NAME"),
    (["list", "--replace"], "--replace does not go with list"),
    (["export", "--subject", "a"], "--subject does not go with export"),
    (["list", "--subject", ""], "1 to 255 bytes"),
    (["list", "--subject", "x" * 256], "1 to 255 bytes"),
    (["import"], "import takes one FILE"),
    (["export", "x"], "-o FILE says where"),
    (["list", "--subjct", "a"], "did you mean --subject?"),
])
def test_wrong_usage(words, text):
    done = stateway("sessions", *words, "--admin", f"127.0.0.1:{free_port()}")
    assert done.returncode == 2, done.stderr
    assert text in done.stderr


def test_nobody_answers(tmp_path):
    for words in (["list"], ["export", "-o", tmp_path / "x"], ["end", "--subject", "a"]):
        done = stateway("sessions", *words, "--admin", f"127.0.0.1:{free_port()}")
        assert done.returncode == 1
        assert "nobody answers" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_ending_while_the_gateway_stops(world):
    """Commits of the admin API that are under way when everything ends."""
    g = world("epoll")
    for n in range(20):
        Browser(g).login("alice")
    stop = threading.Event()

    def hammer():
        while not stop.is_set():
            try:
                admin(g, "DELETE", "/v1/subjects/alice")
            except (OSError, EOFError):
                return

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for t in threads:
        t.start()
    time.sleep(0.5)
    g.stop()
    stop.set()
    for t in threads:
        t.join()
    g.check()
    wait_for(lambda: not g.family())


def test_subjects_of_encrypted_sessions(world):
    """The store knows them by another name, and operators by their own."""
    g = world("epoll", routes=[
        {"path": "/s/*", "app": "o", "state": "session", "expose": ["verdict"], "session": {"encrypt": "on"}},
        {"path": "/cas/*", "app": "o", "state": "session", "expose": ["verdict"],
         "session": {"cookie": {"name": "plain"}}}])
    secret = [Browser(g).login("alice", n=n) for n in range(3)]
    plain = [Browser(g, "/cas").login("alice", n=n) for n in range(4)]
    other = Browser(g).login("bob")
    export = sessions(g, "export").stdout
    assert export.count('"subject":"alice"') == 4
    assert export.count('"sealed":true') == 4
    assert admin(g, "GET", "/v1/subjects/alice").json()["sessions"] == 7
    handles, after = [], {}
    for _ in range(10): # pages that go from one name to the other
        page = listed(g, subject="alice", limit=2, **after)
        handles += [s["handle"] for s in page["sessions"]]
        if page["after"] is None:
            break
        after = {"after": page["after"]}
    assert len(handles) == len(set(handles)) == 7
    assert len(sessions(g, "list", "--subject", "alice", "--json").stdout.splitlines()) == 7
    hidden = next(s for s in listed(g)["sessions"] if s["sealed"])
    assert hidden["subject"].startswith("~")
    shown = sessions(g, "show", hidden["handle"])
    assert "encrypted for its visitor" in shown.stdout
    done = sessions(g, "end", "--subject", "alice")
    assert done.stdout == "alice: ended 7 sessions\n"
    assert [b.state() for b in secret + plain] == [None] * 7
    assert other.state() == {"user": "bob"}
