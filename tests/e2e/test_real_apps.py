"""Each error of the state protocol from an ordinary app in Node, Flask and PHP, with what their servers make of it.

The three apps (origins/states.*) do what the request's body says: headers, status, body, calls to Stateway-Ref.
"""
import concurrent.futures
import json
import shutil
import subprocess
import time
import uuid

import pytest

from harness import PYTHON, ROOT, Gateway, wait_for

ORIGINS = ROOT / "tests" / "e2e" / "origins"
INLINE = 2048


def command(language):
    if language == "flask" and subprocess.run([PYTHON, "-c", "import flask"], capture_output=True,
                                              check=False).returncode != 0:
        pytest.skip("flask is not installed")
    found = {"node": ["node", ORIGINS / "states.mjs"], "flask": [PYTHON, ORIGINS / "states_flask.py"],
             "php": ["php", "-S", "127.0.0.1:{port}", ORIGINS / "states.php"]}[language]
    if shutil.which(found[0]) is None:
        pytest.skip(f"{found[0]} is not installed")
    return [str(word) for word in found]


@pytest.fixture(scope="module", params=["node", "flask", "php"])
def world(request):
    app = {"command": command(request.param), "replicas": 2, "environment": {"PHP_CLI_SERVER_WORKERS": "4"}}
    session = {"key": "path.room", "alarm": "/alarms", "inline": INLINE, "max-size": "64KiB"}

    def route(path, **more):
        return {"path": path, "app": "a", "state": "session", "session": {**session, **more}}
    with Gateway({"apps": {"a": app}, "timeouts": {"response": "1500ms"},
                  "routes": [route("/s/{room}"), route("/cas/{room}", concurrency="cas"),
                             route("/q/{room}", queue={"length": 1, "wait": "700ms"}),
                             {"path": "/v", "app": "a", "state": "session", "session": {"inline": INLINE}},
                             {"path": "/*", "app": "a"}]}) as gateway:
        gateway.language = request.param
        yield gateway


class Room:
    """A state of its own, {"n": 1} at the beginning."""

    def __init__(self, world, base="/s"):
        self.world, self.path = world, f"{base}/{uuid.uuid4().hex}"
        assert self.act(headers=[("Stateway-Set", '{"n":1}')]).status == 200

    def act(self, method="POST", send=(), **ask):
        ask["headers"] = [list(pair) for pair in ask.get("headers", [])]
        return self.world.request(method, self.path, [("Content-Type", "application/json"), *send], json.dumps(ask))

    def seen(self):
        return self.act("GET").json()["seen"]

    def state(self):
        return self.seen().get("stateway-state")

    def calls(self, *calls, **ask):
        """What the app's calls to the reference were answered, and the answer to the client."""
        got = self.act(calls=list(calls), **ask)
        return (got.json()["calls"] if got.status == 200 and "body" not in ask else None), got


@pytest.fixture
def room(world):
    return Room(world)


def refused(got, status, label):
    assert (got.status, got.get("stateway-error")) == (status, label), got


# ---- what comes ----


def test_what_the_app_is_told(room):
    seen = room.seen()
    assert seen["stateway-key"] == "room:" + room.path.rsplit("/", 1)[1]
    assert seen["stateway-version"].startswith('"') and seen["stateway-version"] != '"0"'
    assert (seen["stateway-state"], seen["stateway-mode"]) == ('{"n":1}', "shared")
    assert seen["stateway-state-info"] == "inline;type=json;size=7"
    assert seen["stateway-verdict"] == "kept"
    assert 0 < int(seen["stateway-deadline"]) <= 300_000
    assert seen["stateway-instance"].startswith("a/")
    assert seen["stateway-ref"].startswith("http://127.0.0.1:")


def test_nobody_else_can_say_it(room):
    """Neither with a hyphen nor with an underscore, nor by naming ours in Connection."""
    got = room.act("GET", send=[("Stateway-State", '{"n":99}'), ("Stateway_State", '{"n":98}'), ("Stateway-Key", "x"),
                                ("Stateway_Verdict", "fresh"), ("Connection", "Stateway-State, close")])
    seen = got.json()["seen"]
    assert (seen["stateway-state"], seen["stateway-verdict"]) == ('{"n":1}', "kept")
    assert seen["stateway-key"].startswith("room:")


def test_every_letter_comes_back(room):
    text = "grün, €, 日本, \U0001f600, \"quotes\" and \\ and /"
    assert room.act(headers=[("Stateway-Set", json.dumps({"text": text}))]).status == 200
    assert room.seen()["stateway-state"].isascii()
    assert json.loads(room.state()) == {"text": text}


@pytest.mark.parametrize("size, info", [(INLINE, "inline"), (INLINE + 1, "ref"), (40_000, "ref")])
def test_inline_or_by_reference(room, size, info):
    text = '{"t":"' + "x" * (size - 8) + '"}'
    calls, got = room.calls({"method": "PUT", "headers": {"Content-Type": "application/json"}, "body": text})
    assert (got.status, calls[0]["status"]) == (200, 204)
    calls, got = room.calls({"method": "GET"})
    seen = got.json()["seen"]
    assert seen["stateway-state-info"] == f"{info};type=json;size={size}"
    assert ("stateway-state" in seen) == (info == "inline")
    assert (calls[0]["status"], calls[0]["body"], calls[0]["etag"]) == (200, text, seen["stateway-version"])


def test_absent(world):
    path = f"/s/{uuid.uuid4().hex}"
    got = world.request("POST", path, [], json.dumps({"calls": [{"method": "GET"}]})).json()
    assert (got["seen"]["stateway-version"], got["seen"]["stateway-state-info"]) == ('"0"', "absent")
    assert "stateway-state" not in got["seen"]
    assert got["calls"][0]["status"] == 404


# ---- what goes out, and is wrong ----


@pytest.mark.parametrize("label, headers", [
    ("update-many", [("Stateway-Set", "{}"), ("Stateway-Patch", "{}")]),
    ("update-many", [("Stateway-Patch", "{}"), ("Stateway-Delete", "?1")]),
    ("update-json", [("Stateway-Set", '{"n":')]),
    ("update-json", [("Stateway-Set", '{"n":1,"n":2}')]),
    ("update-json", [("Stateway-Patch", "n=2")]),
    ("update-json", [("Stateway-Set", '{"a":' + "[" * 64 + "]" * 64 + "}")]),
    ("update-type", [("Stateway-Set", "[1]")]),
    ("update-type", [("Stateway-Set", ":e30=:")]),
    ("update-large", [("Stateway-Set", '{"a":"' + "x" * 65536 + '"}')]),
    ("update-syntax", [("Stateway-Delete", "yes")]),
    ("update-syntax", [("Stateway-TTL", "soon")]),
    ("update-syntax", [("Stateway-Expect", "3f2-17")]),
    ("update-syntax", [("Stateway-Commit", "maybe")]),
    ("update-syntax", [("Stateway-Renew", "1")]),
    ("update-syntax", [("Stateway-Set", '{"n":2}'), ("Stateway-Subject", "x" * 256)]),
    ("update-alarm", [("Stateway-Alarm", "soon")]),
    ("update-alarm", [("Stateway-Alarm", f"in=1000;id=a{n}") for n in range(9)]),
    ("update-lost", [("Stateway-Update", "bytes=120")]),
])
def test_a_wrong_update_is_no_answer(room, label, headers):
    got = room.act(headers=headers)
    if label == "update-large" and got.get("stateway-error") == "app-head-large":
        label = "app-head-large"  # limits.head of the gateway comes first
    refused(got, 502, label)
    assert room.state() == '{"n":1}'


def test_other_letters_in_a_header(room):
    """Each server has its own way: one byte of Latin-1, UTF-8, or an error of its own. None of them is a state."""
    for text in ('{"name":"\u00e9"}', '{"price":"1 \u20ac"}'):
        got = room.act(headers=[("Stateway-Set", text)])
        assert got.status in (500, 502, 504), got  # 504: werkzeug fails in the middle of its head, and hangs
        if got.status == 502:
            assert got.get("stateway-error") in ("update-ascii", "app-closed"), got
        assert room.state() == '{"n":1}'


@pytest.mark.parametrize("status, commit, committed", [
    (200, None, True), (303, None, True), (404, None, True), (409, None, True), (500, None, False), (503, None, False),
    (500, "always", True), (303, "2xx", False), (201, "2xx", True)])
def test_the_status_decides(room, status, commit, committed):
    headers = [("Stateway-Set", '{"n":2}')] + ([("Stateway-Commit", commit)] if commit else [])
    got = room.act(status=status, headers=headers)
    assert got.status == status
    assert not [name for name, _ in got.headers if name.lower().startswith("stateway-")]
    assert room.state() == ('{"n":2}' if committed else '{"n":1}')


def test_expect(room):
    version = room.seen()["stateway-version"]
    refused(room.act(headers=[("Stateway-Set", '{"n":2}'), ("Stateway-Expect", '"0"')]), 409, "conflict")
    assert room.state() == '{"n":1}'
    assert room.act(headers=[("Stateway-Set", '{"n":2}'), ("Stateway-Expect", version)]).status == 200
    refused(room.act(headers=[("Stateway-Set", '{"n":3}'), ("Stateway-Expect", version)]), 409, "conflict")
    assert room.state() == '{"n":2}'


def test_delete_and_nothing(room):
    assert room.act().status == 200
    assert room.state() == '{"n":1}'
    assert room.act(headers=[("Stateway-Delete", "?1")]).status == 200
    assert room.seen()["stateway-state-info"] == "absent"


def test_login_and_logout(world):
    jar = {}

    def act(*headers):
        body = json.dumps({"headers": [list(h) for h in headers]})
        return world.post("/v", body, cookies=jar)
    assert act(("Stateway-Set", '{"n":1}')).status == 200
    first = dict(jar)
    assert act(("Stateway-Renew", "?1"), ("Stateway-Subject", "alice"), ("Stateway-Patch", '{"in":true}')).status == 200
    assert jar != first
    assert json.loads(world.get("/v", cookies=dict(first)).json()["seen"]["stateway-state"]) == {"n": 1, "in": True}
    kept = dict(jar)
    assert "Max-Age=0" in act(("Stateway-Delete", "?1")).get("set-cookie")
    assert world.get("/v", cookies=kept).json()["seen"]["stateway-verdict"] == "revoked"


# ---- the envelope ----


ENVELOPE = ("Content-Type", "application/stateway-commit+json")


def test_envelope(room):
    document = {"state": {"set": {"text": "grün €"}},
                "response": {"status": 201, "body": "ü",
                             "headers": {"Content-Type": "text/plain", "X-Two": ["a", "b"]}}}
    got = room.act(headers=[ENVELOPE], body=json.dumps(document, ensure_ascii=False))
    assert (got.status, got.body.decode(), got.get("content-type"), got.all("x-two")) == \
        (201, "ü", "text/plain", ["a", "b"])
    assert json.loads(room.state()) == {"text": "grün €"}


@pytest.mark.parametrize("body, label", [
    ("{", "update-json"), ('{"state":{"set":[1]}}', "update-type"), ('{"state":{"set":{},"patch":{}}}', "update-many"),
    ('{"stat":{"set":{}}}', "update-envelope"), ('{"response":{"status":99}}', "update-envelope"),
    ('{"response":{"headers":{"Stateway-Set":"{}"}}}', "update-envelope"),
    ('{"response":{"headers":{"Transfer-Encoding":"chunked"}}}', "update-envelope"),
    ('{"response":{"body":"a","body-bin":"YQ=="}}', "update-envelope"),
])
def test_a_wrong_envelope(room, body, label):
    got = room.act(headers=[ENVELOPE], body=body)
    assert got.status == 502, got
    assert got.get("stateway-error") in (label, "update-envelope")
    assert room.state() == '{"n":1}'


def test_envelope_and_header(room):
    refused(room.act(headers=[ENVELOPE, ("Stateway-Set", "{}")], body='{"state":{"set":{}}}'), 502, "update-many")
    assert room.state() == '{"n":1}'


# ---- the side API ----


JSON, PATCH = {"Content-Type": "application/json"}, {"Content-Type": "application/merge-patch+json"}


@pytest.mark.parametrize("method, headers, body, status", [
    ("GET", {"If-None-Match": "VERSION"}, "", 304),
    ("PUT", {**JSON, "If-Match": '"0"'}, "{}", 412),
    ("PUT", {**JSON, "If-None-Match": "*"}, "{}", 412),
    ("PATCH", {**PATCH, "If-Match": '"f-9"'}, "{}", 412),
    ("DELETE", {"If-Match": '"f-9"'}, "", 412),
    ("PUT", {"Content-Type": "text/plain"}, "{}", 415),
    ("PATCH", JSON, "{}", 415),
    ("PUT", JSON, "no json", 422), ("PUT", JSON, "[1]", 422), ("PATCH", PATCH, '"x"', 422),
    ("PUT", JSON, '{"a":"' + "x" * 65536 + '"}', 413),
    ("POST", JSON, "{}", 405),
])
def test_refusals_of_the_reference(room, method, headers, body, status):
    version = room.seen()["stateway-version"]
    headers = {k: v.replace("VERSION", version) for k, v in headers.items()}
    calls, got = room.calls({"method": method, "headers": headers, "body": body})
    assert (got.status, calls[0]["status"]) == (200, status)
    assert room.state() == '{"n":1}'


def test_staged_until_the_answer(room):
    version = room.seen()["stateway-version"]
    calls, got = room.calls({"method": "PATCH", "headers": {**PATCH, "If-Match": version}, "body": '{"m":2}'},
                            {"method": "GET"},
                            {"method": "PATCH", "headers": {**PATCH, "If-Match": version}, "body": "{}"},
                            {"method": "DELETE"}, {"method": "GET"},
                            {"method": "PUT", "headers": {**JSON, "If-None-Match": "*"}, "body": '{"k":1}'})
    assert [c["status"] for c in calls] == [204, 200, 412, 204, 404, 204]
    assert json.loads(calls[1]["body"]) == {"n": 1, "m": 2}
    assert got.status == 200
    assert room.state() == '{"k":1}'


def test_half_of_the_writes_and_then_a_failure(room):
    _, got = room.calls({"method": "PUT", "headers": JSON, "body": '{"n":7}'}, status=500)
    assert got.status == 500
    assert room.state() == '{"n":1}'
    _, got = room.calls({"method": "PUT", "headers": JSON, "body": '{"n":7}'}, headers=[("Stateway-Set", "{}")])
    refused(got, 502, "update-many")
    assert room.state() == '{"n":1}'


def test_a_reader_may_only_read(room):
    got = room.act("GET", calls=[{"method": "PUT", "headers": JSON, "body": "{}"}, {"method": "GET"}]).json()
    assert [c["status"] for c in got["calls"]] == [409, 200]
    assert room.state() == '{"n":1}'


def test_after_the_answer(room):
    old = room.act().json()["seen"]["stateway-ref"]
    calls, _ = room.calls({"method": "GET", "url": old},
                          {"method": "PUT", "url": old, "headers": JSON, "body": "{}"})
    assert [c["status"] for c in calls] == [410, 410]
    assert room.state() == '{"n":1}'


def test_at_once(room):
    """A long job's step stays, though the job fails."""
    calls, got = room.calls({"method": "PATCH", "query": "?immediate=1", "headers": PATCH, "body": '{"done":1}'},
                            status=500)
    assert got.status == 500
    assert json.loads(room.state()) == {"n": 1, "done": 1}


# ---- one at a time ----


def test_a_late_answer_is_nobodys(room):
    refused(room.act(sleep=2.2, headers=[("Stateway-Set", '{"n":2}')]), 504, "app-slow")
    time.sleep(1.2)
    assert room.state() == '{"n":1}'
    assert room.act(headers=[("Stateway-Set", '{"n":3}')]).status == 200


def test_the_line_is_full_and_long(world):
    room = Room(world, "/q")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        holder = pool.submit(room.act, sleep=1.2)
        time.sleep(0.25)
        waiter = pool.submit(room.act)
        time.sleep(0.15)
        full = room.act()
        refused(full, 503, "queue-full")
        assert full.get("retry-after")
        assert room.state() == '{"n":1}'  # who reads does not wait
        refused(waiter.result(), 503, "queue-wait")
        assert holder.result().status == 200


def test_whoever_comes_second_under_cas(world):
    room = Room(world, "/cas")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(room.act, sleep=0.8, headers=[("Stateway-Set", '{"n":"slow"}')])
        time.sleep(0.3)
        assert room.act(headers=[("Stateway-Set", '{"n":"quick"}')]).status == 200
        refused(slow.result(), 409, "conflict")
    assert room.state() == '{"n":"quick"}'


def test_it_ended_meanwhile(world):
    room = Room(world, "/cas")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(room.act, sleep=0.8, headers=[("Stateway-Set", '{"n":"slow"}')])
        time.sleep(0.3)
        assert room.act(headers=[("Stateway-Delete", "?1")]).status == 200
        got = slow.result()
    assert got.status == 409 and got.get("stateway-error") in ("state-gone", "conflict")
    assert room.state() is None


def test_calling_back(world, room):
    """For the same key while it is held: 423 at once where the trace is passed on; a read is answered."""
    url, headers = world.url + room.path, {"Content-Type": "application/json", "Stateway-Trace": "$trace"}
    began = time.monotonic()
    calls, got = room.calls({"method": "POST", "url": url, "headers": headers, "body": "{}"},
                            {"method": "GET", "url": url, "headers": headers})
    assert (got.status, [(c["status"], c["error"]) for c in calls]) == (200, [(423, "re-entry"), (200, None)])
    assert time.monotonic() - began < 1.4
    assert room.state() == '{"n":1}'


def test_an_alarm(room):
    """These apps answer it with 200 and nothing else: so it is taken out, which makes a version."""
    assert room.act(headers=[("Stateway-Alarm", 'in=100;id=a;data="x y"')]).status == 200
    first = room.seen()["stateway-version"]
    wait_for(lambda: room.seen()["stateway-version"] != first, 10)
    assert room.state() == '{"n":1}'


def test_an_instance_that_dies(world, room):
    if world.language == "php":
        pytest.skip("a worker of php -S that dies is replaced by its master, and looks like one that closes")
    got = room.act(die=True, headers=[("Stateway-Set", '{"n":2}')])
    refused(got, 502, "app-closed")
    wait_for(lambda: room.act("GET").status == 200, 20)
    assert room.state() == '{"n":1}'
