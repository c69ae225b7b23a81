"""States that do not fit a header: by reference, by the side API, in envelopes. Whole or not at all.

The app (an Origin) is played by functions of the test; inside, it calls Stateway-Ref like any HTTP client.
"""
import base64
import concurrent.futures
import json
import re
import socket
import threading
import time
import uuid

import pytest

import harness
from harness import Gateway, Origin, Raw, answer, request_bytes, wait_for

INLINE, MAX = 4096, 1 << 20
REF = re.compile(r"http://127\.0\.0\.1:(\d+)(/state/[A-Za-z0-9_-]{22})")
TAG = re.compile(r'"[0-9a-f]+-\d+[^"]*"')
JSON, MERGE = ("Content-Type", "application/json"), ("Content-Type", "application/merge-patch+json")


class App(Origin):
    """play(act, ...): what the next request to /x gets; tells what it was handed."""

    def __init__(self):
        self.act = None
        super().__init__(self._act)

    def _act(self, asked, raw):
        if asked.get("user-agent") == "stateway-health":
            return answer(200)
        return (self.act or (lambda asked, raw: answer(200)))(asked, raw)


class Ref:
    """The side API of a running request."""

    def __init__(self, asked):
        self.url = asked.get("stateway-ref")
        found = REF.fullmatch(self.url or "")
        assert found, f"no Stateway-Ref: {asked.headers}"
        self.port, self.path = int(found[1]), found[2]

    def ask(self, method, body=None, headers=(), path=None):
        with Raw(("127.0.0.1", self.port)) as raw:
            return raw.request(method, path or self.path, list(headers) + [("Connection", "close")],
                               body.encode() if isinstance(body, str) else body)

    def get(self, headers=()):
        return self.ask("GET", headers=headers)

    def put(self, body, headers=(JSON,)):
        return self.ask("PUT", body, headers)

    def patch(self, body, headers=(MERGE,)):
        return self.ask("PATCH", body, headers)

    def delete(self, headers=()):
        return self.ask("DELETE", headers=headers)


def of_size(size, letter="y"):
    """A state of exactly that many bytes."""
    text = '{"x":"' + letter * (size - 8) + '"}'
    assert len(text) == size
    return text


def envelope(state=None, response=None, status=200, headers=(), **more):
    document = {**({"state": state} if state is not None else {}),
                **({"response": response} if response is not None else {}), **more}
    return answer(status, json.dumps(document), [("Content-Type", "application/stateway-commit+json"), *headers])


def route(path="/{room}/x", **session):
    return {"path": path, "app": "a", "state": "session", "expose": ["verdict"],
            "session": {"key": "path.room", "alarm": "/alarms", **session}}


@pytest.fixture(scope="module", params=harness.engines())
def world(request):
    if request.param == "uring" and not harness.has_uring():
        pytest.skip("the kernel refuses io_uring here")
    origin = App()
    with Gateway({"apps": {"a": {"servers": [origin.address]}},
                  "routes": [route(), route("/{room}/small", **{"max-size": "8KiB"}),
                             route("/{room}/cas", concurrency="cas"),
                             {"path": "/v/*", "app": "a", "state": "session"}],
                  "timeouts": {"response": "5s"}, "limits": {"head": "64KiB"}},
                 engine=request.param) as gateway:
        gateway.origin = origin
        yield gateway
    origin.close()


@pytest.fixture
def room(world):
    return Room(world)


class Room:
    """A state of its own."""

    def __init__(self, world, tail="x"):
        self.world, self.path = world, f"/{uuid.uuid4().hex}/{tail}"

    def play(self, act, method="POST", **options):
        """The app plays act(asked) or act(asked, raw) for this request; what goes wrong in it fails the test."""
        wrong = []

        def careful(asked, raw):
            if not asked.target.startswith(self.path):
                return answer(200)
            try:
                return act(asked, raw) if act.__code__.co_argcount == 2 else act(asked)
            except AssertionError as e:
                wrong.append(e)
                return answer(599)
        self.world.origin.act = careful
        got = self.world.request(method, self.path, body=b"" if method == "POST" else None, **options)
        if wrong:
            raise wrong[0]
        return got

    def put(self, text):
        """Commits it whatever its size, by an envelope."""
        body = f'{{"state":{{"set":{text}}}}}'
        got = self.play(lambda asked: answer(200, body, [("Content-Type", "application/stateway-commit+json")]))
        assert got.status == 200, got
        return got

    def seen(self):
        """What the next request, a GET, is told of the state; and what it fetches, if it is by reference."""
        told = {}

        def look(asked):
            told.update(state=asked.get("stateway-state"), info=asked.get("stateway-state-info"),
                        version=asked.get("stateway-version"), ref=asked.get("stateway-ref"))
            if told["info"].startswith("ref"):
                got = Ref(asked).get()
                assert got.status == 200, got
                told["fetched"] = got.body.decode()
            return answer(200)
        assert self.play(look, "GET").status == 200
        return told

    def text(self):
        told = self.seen()
        assert (told["state"] is None) or ("fetched" not in told)
        return told.get("fetched", told["state"])


# ---- by size ----


@pytest.mark.parametrize("size", [2, 64, INLINE - 1, INLINE, INLINE + 1, 16384, 65536, MAX - 1, MAX])
def test_every_size_comes_whole(room, size):
    text = of_size(size) if size > 8 else "{}"
    room.put(text)
    told = room.seen()
    if size <= INLINE:
        assert told["state"] == text
        assert told["info"] == f"inline;type=json;size={size}"
    else:
        assert told["state"] is None
        assert told["info"] == f"ref;type=json;size={size}"
        assert told["fetched"] == text
    assert REF.fullmatch(told["ref"])
    assert TAG.fullmatch(told["version"])


def test_absent(room):
    told = room.seen()
    assert (told["state"], told["info"], told["version"]) == (None, "absent", '"0"')

    def look(asked):
        got = Ref(asked).get()
        assert (got.status, got.get("etag")) == (404, None)
        return answer(200)
    assert room.play(look).status == 200


def test_max_and_one_more(room):
    room.put(of_size(MAX))
    for act in (lambda asked: answer(200, f'{{"state":{{"set":{of_size(MAX + 1)}}}}}',
                                     [("Content-Type", "application/stateway-commit+json")]),
                lambda asked: envelope({"patch": {"z": 1}}),
                lambda asked: answer(200, b"", [("Stateway-Patch", '{"z":1}')])):
        got = room.play(act)
        assert (got.status, got.get("stateway-error")) == (502, "update-large")
    assert room.text() == of_size(MAX)

    def by_ref(asked):
        ref = Ref(asked)
        assert ref.put(of_size(MAX + 1)).status == 413
        assert ref.patch('{"z":1}').status == 413
        assert ref.get().body.decode() == of_size(MAX)
        assert ref.put("x" * (2 * MAX + 1)).status == 413
        return answer(200)
    assert room.play(by_ref).status == 200
    assert room.text() == of_size(MAX)


def test_limit_of_the_route(world):
    small = Room(world, "small")
    small.put(of_size(8192))
    got = small.play(lambda asked: envelope({"set": {"x": "y" * 8185}}))
    assert (got.status, got.get("stateway-error")) == (502, "update-large")
    assert len(small.text()) == 8192


def test_header_of_an_answer_above_inline(room):
    """A larger update may come in a header too, if the server sends such ones; the state is then by reference."""
    text = of_size(20000)
    got = room.play(lambda asked: answer(200, b"", [("Stateway-Set", text)]))
    assert got.status == 200, got
    assert room.text() == text


def test_small_patch_of_a_large_state(room):
    room.put('{"x":"' + "y" * 500000 + '","n":1}')
    got = room.play(lambda asked: answer(200, b"", [("Stateway-Patch", '{"n":2,"m":[1]}')]))
    assert got.status == 200
    assert json.loads(room.text()) == {"x": "y" * 500000, "n": 2, "m": [1]}
    got = room.play(lambda asked: answer(200, b"", [("Stateway-Patch", '{"x":null}')]))
    assert room.text() == '{"n":2,"m":[1]}'


def test_unicode_by_reference(room):
    """Outside of headers UTF-8 is fine; what is kept is ASCII."""
    word = {"name": "Zo\u00eb \u20ac \U0001f600", "x": "y" * 5000}
    room.put(json.dumps(word, ensure_ascii=False))
    text = room.text()
    assert text.isascii()
    assert json.loads(text) == word

    def put(asked):
        assert Ref(asked).put(json.dumps({**word, "m": "\u00fc"}, ensure_ascii=False)).status == 204
        return answer(200)
    assert room.play(put).status == 200
    assert json.loads(room.text()) == {**word, "m": "\u00fc"}


# ---- the side API ----


def test_etags(room):
    room.put(of_size(5000))
    version = room.seen()["version"]

    def act(asked):
        ref = Ref(asked)
        got = ref.get()
        tag = got.get("etag")
        assert (got.status, got.get("content-type"), tag) == (200, "application/json", version)
        assert "no-store" in got.get("cache-control")
        assert ref.ask("HEAD").get("etag") == tag
        got = ref.get([("If-None-Match", tag)])
        assert (got.status, got.get("etag"), got.body) == (304, tag, b"")
        assert ref.get([("If-None-Match", '"other"')]).status == 200
        assert ref.put("{}", [JSON, ("If-Match", '"other"')]).status == 412
        assert ref.put("{}", [JSON, ("If-None-Match", "*")]).status == 412
        assert ref.patch("{}", [MERGE, ("If-Match", '"0"')]).status == 412
        assert ref.delete([("If-Match", '"other"')]).status == 412
        assert ref.get().body.decode() == of_size(5000)
        got = ref.put('{"n":1}', [JSON, ("If-Match", tag)])
        assert got.status == 204, got
        second = got.get("etag")
        assert second and second != tag
        assert ref.put("{}", [JSON, ("If-Match", tag)]).status == 412  # that was before
        got = ref.get()
        assert (got.body, got.get("etag")) == (b'{"n":1}', second)  # it reads what it wrote
        got = ref.patch('{"m":2}', [MERGE, ("If-Match", second)])
        third = got.get("etag")
        assert got.status == 204 and third not in (tag, second)
        assert ref.get([("If-Match", "*")]).body == b'{"n":1,"m":2}'
        assert ref.delete([("If-Match", third)]).status == 204
        got = ref.get()
        assert (got.status, got.get("etag")) == (404, None)
        assert ref.put("{}", [JSON, ("If-Match", "*")]).status == 412
        assert ref.put('{"last":1}', [JSON, ("If-None-Match", "*")]).status == 204
        return answer(200)
    assert room.play(act).status == 200
    assert room.text() == '{"last":1}'


@pytest.mark.parametrize("method, body, headers, status", [
    ("PUT", b"no json", [JSON], 422), ("PUT", b"", [JSON], 422), ("PUT", b"[1]", [JSON], 422),
    ("PUT", b'"x"', [JSON], 422),
    ("PUT", b'{"a":1,"a":2}', [JSON], 422), ("PUT", b"{}{}", [JSON], 422), ("PUT", b'{"a":"\xff"}', [JSON], 422),
    ("PUT", b"{}", [("Content-Type", "text/plain")], 415), ("PUT", b"{}", [MERGE], 415),
    ("PUT", b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", [JSON], 422),
    ("PATCH", b"{}", [JSON], 415), ("PATCH", b"{}", [], 415), ("PATCH", b"[]", [MERGE], 422),
    ("PATCH", b"x", [MERGE], 422),
    ("PATCH", b"", [MERGE], 422), ("POST", b"{}", [JSON], 405), ("FROB", b"{}", [JSON], 405),
])
def test_refusals_leave_all_as_it_was(room, method, body, headers, status):
    room.put('{"n":1}')

    def act(asked):
        ref = Ref(asked)
        got = ref.ask(method, body, headers)
        assert got.status == status, got
        assert got.get("stateway-error")
        assert (status != 405) or got.get("allow")
        assert ref.get().body == b'{"n":1}'
        return answer(200)
    assert room.play(act).status == 200
    assert room.text() == '{"n":1}'


def test_charset_is_no_other_type(room):
    def act(asked):
        assert Ref(asked).put("{}", [("Content-Type", "application/json; charset=utf-8")]).status == 204
        return answer(200)
    assert room.play(act).status == 200
    assert room.text() == "{}"


def test_chunked_and_slow(room):
    """The body arrives in whatever pieces."""
    text = of_size(60000)

    def act(asked):
        ref = Ref(asked)
        with Raw(("127.0.0.1", ref.port)) as raw:
            raw.send(f"PUT {ref.path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                     "Transfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(text), 7000):
                part = text[at:at + 7000]
                raw.send(f"{len(part):x}\r\n{part}\r\n", cut=3000, pause=0.001)
            raw.send("0\r\n\r\n")
            assert raw.read("PUT").status == 204
            got = raw.request("GET", ref.path)  # the connection is good for the next one
            assert got.body.decode() == text
        return answer(200)
    assert room.play(act).status == 200
    assert room.text() == text


def test_nothing_is_seen_before_the_commit(room):
    room.put('{"n":1}')
    seen = []

    def act(asked, raw):
        if asked.method == "GET":
            seen.append(asked.get("stateway-state"))
            return answer(200)
        ref = Ref(asked)
        assert ref.put('{"n":2}').status == 204
        assert room.world.get(room.path).status == 200
        assert ref.patch('{"m":3}').status == 204
        assert room.world.get(room.path).status == 200
        return answer(200)
    assert room.play(act).status == 200
    assert seen == ['{"n":1}', '{"n":1}']
    assert room.text() == '{"n":2,"m":3}'


def broken_head(_, raw):
    raw.send("HTTP/1.1 200 OK\r\nContent-Le")
    raw.close()


@pytest.mark.parametrize("end", [
    lambda asked, raw: answer(500), lambda asked, raw: answer(503), lambda asked, raw: raw.close(), broken_head,
    lambda asked, raw: answer(200, b"", [("Stateway-Set", "{")]),
    lambda asked, raw: answer(200, b"", [("Stateway-Set", '{"a":1}'), ("Stateway-Patch", '{"a":1}')]),
    lambda asked, raw: answer(200, b"", [("Stateway-Expect", '"1-1"')]),
    lambda asked, raw: answer(200, b"", [("Stateway-Alarm", "nonsense")]),
    lambda asked, raw: answer(400, b"", [("Stateway-Commit", "2xx")]),
], ids=["500", "503", "closed", "half a head", "bad set", "both", "expect", "bad alarm", "2xx only"])
def test_half_of_the_writes_and_then_an_end(room, end):
    """An exception after half of the writes: the old state stands."""
    room.put(of_size(5000, "a"))

    def act(asked, raw):
        ref = Ref(asked)
        assert ref.put(of_size(70000, "b")).status == 204
        assert ref.patch('{"half":true}').status == 204
        return end(asked, raw)
    got = room.play(act)
    assert got.status >= 400, got
    assert room.text() == of_size(5000, "a")


@pytest.mark.parametrize("status, headers, committed", [
    (200, [], True), (302, [], True), (404, [], True), (500, [("Stateway-Commit", "always")], True),
    (404, [("Stateway-Commit", "2xx")], False), (500, [], False)])
def test_commits_by_the_rules_of_any_update(room, status, headers, committed):
    room.put('{"n":1}')

    def act(asked):
        assert Ref(asked).put('{"n":2}').status == 204
        return answer(status, b"", headers)
    got = room.play(act)
    assert got.status == status
    assert room.text() == ('{"n":2}' if committed else '{"n":1}')


def test_delete_by_reference(room):
    room.put(of_size(5000))

    def act(asked):
        assert Ref(asked).delete().status == 204
        return answer(200)
    assert room.play(act).status == 200
    told = room.seen()
    assert (told["state"], told["info"]) == (None, "absent")


def test_header_and_staged_together(room):
    """Two updates of one answer: not one of them silently."""
    room.put('{"n":1}')

    def act(asked):
        assert Ref(asked).put('{"n":2}').status == 204
        return answer(200, b"", [("Stateway-Set", '{"n":3}')])
    got = room.play(act)
    assert (got.status, got.get("stateway-error")) == (502, "update-many")
    assert room.text() == '{"n":1}'


def test_shared_requests_read_only(room):
    room.put(of_size(5000))

    def act(asked):
        assert asked.get("stateway-mode") == "shared"
        ref = Ref(asked)
        for got in (ref.put("{}"), ref.patch("{}"), ref.delete()):
            assert (got.status, got.get("stateway-error")) == (409, "stage-shared")
        assert ref.get().status == 200
        return answer(200)
    assert room.play(act, "GET").status == 200
    assert room.text() == of_size(5000)


def test_the_end_of_a_reference(room):
    """410 when the head of the answer was sent, when the app was given up, and for what never was."""
    kept = {}

    def act(asked, raw):
        ref = kept["ref"] = Ref(asked)
        assert ref.put('{"n":1}').status == 204
        raw.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
        wait_for(lambda: ref.get().status == 410, 5)
        assert ref.put('{"n":2}').status == 410
        raw.send("lf")
    got = room.play(act)
    assert (got.status, got.body) == (200, b"half")
    for answered in (kept["ref"].get(), kept["ref"].put('{"n":3}'), kept["ref"].delete()):
        assert (answered.status, answered.get("stateway-error")) == (410, "stage-gone")
    assert room.text() == '{"n":1}'


def test_given_up_by_time(world, room):
    kept = {}

    def act(asked, raw):
        kept["ref"] = Ref(asked)
        assert kept["ref"].put('{"n":1}').status == 204
        time.sleep(5.6)
        kept["late"] = kept["ref"].put('{"n":2}').status
        return answer(200)
    got = room.play(act)
    assert (got.status, got.get("stateway-error")) == (504, "app-slow")
    wait_for(lambda: "late" in kept)
    assert kept["late"] == 410
    assert room.seen()["info"] == "absent"


def test_a_reference_is_a_secret(room):
    def act(asked):
        ref = Ref(asked)
        wrong = ref.path[:-1] + ("A" if ref.path[-1] != "A" else "Q")
        for path in (wrong, ref.path + "A", ref.path[:-1], ref.path + "/", ref.path + "?x=1", "/state/", "/",
                     "/state/../x",
                     ref.path.replace("/state/", "/State/")):
            got = ref.ask("GET", path=path)
            assert got.status in (400, 404, 410), (path, got)
        assert ref.get().status == 404
        return answer(200)
    assert room.play(act).status == 200
    # neither the client nor the log learns it
    told = {}

    def tell(asked):
        told["ref"] = Ref(asked)
        return answer(200, b"", [("Stateway-Ref", told["ref"].url)])
    got = room.play(tell)
    assert not [v for _, v in got.headers if told["ref"].path in v]
    assert told["ref"].path.split("/")[-1] not in room.world.log()


def test_references_of_different_requests_differ(room):
    seen = {room.seen()["ref"] for _ in range(20)}
    assert len(seen) == 20


def test_the_side_door_is_no_gateway(world, room):
    """Nothing but /state/ is served there, and nothing of /state/ at the front."""
    def act(asked):
        ref = Ref(asked)
        assert ref.ask("GET", path=room.path).status == 404
        assert ref.ask("POST", b"", path=room.path).status in (404, 405)
        front = world.get(ref.path)
        assert front.status == 404 and front.get("stateway-error") == "no-route"
        return answer(200)
    assert room.play(act).status == 200


def test_the_envelope_of_two_apps_at_once(world):
    """Each request has a state of its own, whichever worker runs it."""
    rooms = [Room(world) for _ in range(24)]

    def act(asked, raw):
        if not asked.get("stateway-key"):
            return answer(200)
        name = asked.get("stateway-key").partition(":")[2]
        ref = Ref(asked)
        assert ref.put('{"name":"' + name + '","x":"' + "y" * 9000 + '"}').status == 204
        time.sleep(0.05)
        assert json.loads(ref.get().body)["name"] == name
        return answer(200)
    world.origin.act = act
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        got = [f.result() for f in [pool.submit(world.post, r.path) for r in rooms]]
    assert {g.status for g in got} == {200}
    for one in rooms:
        assert json.loads(one.text())["name"] == one.path.split("/")[1]


# ---- envelopes ----


def test_envelope(room):
    def act(asked):
        return envelope({"set": {"n": 2}}, {"status": 201, "headers": {"Content-Type": "text/html", "X-Two": ["a", "b"],
                                                                       "Set-Cookie": ["c=1", "d=2"]},
                                            "body": "<p>done \u20ac"}, headers=[("X-Outer", "no")])
    got = room.play(act)
    assert (got.status, got.reason, got.body.decode()) == (201, "Created", "<p>done \u20ac")
    assert got.all("content-type") == ["text/html"]
    assert got.all("x-two") == ["a", "b"]
    assert got.all("set-cookie") == ["c=1", "d=2"]
    assert got.get("content-length") == str(len("<p>done \u20ac".encode()))
    assert got.get("x-outer") is None
    assert not [k for k, _ in got.headers if k.lower().startswith("stateway") and k.lower() != "stateway-verdict"]
    assert room.text() == '{"n":2}'


@pytest.mark.parametrize("state, after", [
    ({"set": {"a": 1}}, '{"a":1}'), ({"patch": {"b": 2}}, '{"n":1,"b":2}'), ({"patch": {"n": None}}, "{}"),
    ({"delete": True}, None), (None, '{"n":1}')])
def test_envelope_states(room, state, after):
    room.put('{"n":1}')
    got = room.play(lambda asked: envelope(state, {"status": 200, "body": "x"}))
    assert (got.status, got.body) == (200, b"x")
    assert room.text() == after


def test_envelope_bodies(room):
    raw_bytes = bytes(range(256)) * 300
    got = room.play(lambda asked: envelope(None, {"body-bin": base64.b64encode(raw_bytes).decode()}))
    assert (got.status, got.body) == (200, raw_bytes)
    got = room.play(lambda asked: envelope(None, {"body": "\u0000\n\"\\\u20ac\U0001f600"}))
    assert got.body.decode() == "\u0000\n\"\\\u20ac\U0001f600"
    got = room.play(lambda asked: envelope(None, {"status": 204}))
    assert (got.status, got.body) == (204, b"")
    got = room.play(lambda asked: envelope({"set": {}}))
    assert (got.status, got.body) == (200, b"")
    text = "z" * 700000
    got = room.play(lambda asked: envelope({"set": {"x": "y" * 300000}}, {"body": text}))
    assert got.body.decode() == text
    assert len(room.text()) == 300008


def test_envelope_chunked(room):
    body = json.dumps({"state": {"set": {"x": "y" * 100000}}, "response": {"body": "ok"}}).encode()

    def act(asked, raw):
        raw.send("HTTP/1.1 200 OK\r\nContent-Type: application/stateway-commit+json\r\n"
                 "Transfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(body), 9999):
            part = body[at:at + 9999]
            raw.send(f"{len(part):x}\r\n".encode() + part + b"\r\n", cut=4000, pause=0.0005)
        raw.send("0\r\n\r\n")
    got = room.play(act)
    assert (got.status, got.body) == (200, b"ok")
    assert len(room.text()) == 100008


def test_envelope_cut_off(room):
    room.put('{"n":1}')

    def act(asked, raw):
        body = json.dumps({"state": {"set": {"n": 2}}})
        raw.send("HTTP/1.1 200 OK\r\nContent-Type: application/stateway-commit+json\r\n"
                 f"Content-Length: {len(body) + 1}\r\n\r\n{body}")
        raw.close()
    assert room.play(act).status == 502
    assert room.text() == '{"n":1}'


@pytest.mark.parametrize("body, label", [
    ("", None), ("{", "update-json"), ("[]", "update-envelope"), ('"x"', "update-envelope"),
    ('{"state":{"set":{"n":2}},"extra":1}', "update-envelope"), ('{"state":{"set":{"n":2},"more":1}}', None),
    ('{"state":{"set":{"n":2},"patch":{"n":3}}}', "update-many"),
    ('{"state":{"set":{"n":2},"delete":true}}', "update-many"),
    ('{"state":{"set":[1]}}', "update-type"), ('{"state":{"patch":3}}', "update-type"),
    ('{"state":{"delete":1}}', None),
    ('{"state":{"set":{"n":2}},"response":{"status":"200"}}', "update-envelope"),
    ('{"state":{"set":{"n":2}},"response":{"status":99}}', "update-envelope"),
    ('{"state":{"set":{"n":2}},"response":{"status":101}}', "update-envelope"),
    ('{"state":{"set":{"n":2}},"response":{"status":600}}', "update-envelope"),
    ('{"state":{"set":{"n":2}},"response":{"headers":{"Content-Length":"3"}}}', "update-envelope"),
    ('{"state":{"set":{"n":2}},"response":{"headers":{"transfer-encoding":"chunked"}}}', "update-envelope"),
    ('{"state":{"set":{"n":2}},"response":{"headers":{"Connection":"close"}}}', "update-envelope"),
    ('{"state":{"set":{"n":2}},"response":{"headers":{"Stateway-Set":"{}"}}}', "update-envelope"),
    ('{"state":{"set":{"n":2}},"response":{"headers":{"X":"a\\r\\nY: b"}}}', "update-envelope"),
    ('{"state":{"set":{"n":2}},"response":{"headers":{"X Y":"a"}}}', "update-envelope"),
    ('{"state":{"set":{"n":2}},"response":{"headers":{"X":1}}}', "update-envelope"),
    ('{"state":{"set":{"n":2}},"response":{"body":"a","body-bin":"YQ=="}}', "update-envelope"),
    ('{"state":{"set":{"n":2}},"response":{"body":1}}', "update-envelope"),
    ('{"state":{"set":{"n":2}},"response":{"body-bin":"***"}}', "update-envelope"),
    ('{"state":{"set":{"n":2}},"publish":[{"channel":"x"}]}', "update-unsupported"),
    ('{"state":{"set":{"n":2}},"alarms":["nonsense"]}', "update-alarm"),
    ('{"state":{"set":{"n":2}},"alarms":"in=1"}', "update-envelope"),
    ('{"state":{"set":{"n":2,"n":3}}}', "update-json"),
    ('{"state":{"set":{"n":2}},"state":{"set":{"n":3}}}', "update-json"),
])
def test_wrong_envelopes(room, body, label):
    room.put('{"n":1}')
    got = room.play(lambda asked: answer(200, body, [("Content-Type", "application/stateway-commit+json")]))
    assert got.status == 502, got
    assert (got.get("stateway-error") == label) if label else got.get("stateway-error").startswith("update-")
    assert room.text() == '{"n":1}'


def test_envelope_and_header(room):
    room.put('{"n":1}')
    got = room.play(lambda asked: envelope({"set": {"n": 2}}, headers=[("Stateway-Set", '{"n":3}')]))
    assert (got.status, got.get("stateway-error")) == (502, "update-many")
    assert room.text() == '{"n":1}'


def test_envelope_of_a_failure(room):
    """The status that counts is the one that the client gets."""
    room.put('{"n":1}')
    got = room.play(lambda asked: envelope({"set": {"n": 2}}, {"status": 500, "body": "no"}))
    assert (got.status, got.body) == (500, b"no")
    assert room.text() == '{"n":1}'
    got = room.play(lambda asked: envelope({"set": {"n": 2}}, {"status": 503}, headers=[("Stateway-Commit", "always")]))
    assert got.status == 503
    assert room.text() == '{"n":2}'


def test_envelope_type_on_a_stateless_route(gateway, origin):
    """There it is a type like any other."""
    body = json.dumps({"state": {"set": {}}, "response": {"body": "x"}})
    o = origin(lambda asked, raw: answer(200, body, [("Content-Type", "application/stateway-commit+json")]))
    g = gateway({"apps": {"a": {"servers": [o.address]}}, "routes": [{"path": "/*", "app": "a"}]})
    assert g.get("/").body.decode() == body


def test_envelope_for_head(room):
    room.put('{"n":1}')
    got = room.play(lambda asked: b"HTTP/1.1 200 OK\r\nContent-Type: application/stateway-commit+json\r\n"
                    b"Content-Length: 70\r\n\r\n", "HEAD")
    assert got.status == 200  # it has no body, so it asks for nothing
    assert room.text() == '{"n":1}'


def test_visitor_by_envelope(world):
    """The first write makes the cookie, also from there."""
    cookies = {}
    world.origin.act = lambda asked, raw: (envelope({"set": {"x": "y" * 6000}},
                                                    {"body": "ok"}) if asked.method == "POST" else
                                           answer(200, asked.get("stateway-state-info")))
    got = world.post("/v/", cookies=cookies)
    assert (got.status, got.body) == (200, b"ok")
    assert len(got.all("set-cookie")) == 1 and "sid" in cookies
    assert world.get("/v/", cookies=cookies).body == b"ref;type=json;size=6008"


# ---- lost and refused headers ----


@pytest.mark.parametrize("announced, header, status", [
    ("bytes=7", [("Stateway-Set", '{"n":2}')], 200), ("bytes=8", [("Stateway-Set", '{"n":2}')], 502),
    ("bytes=7", [], 502),
    ("bytes=100000", [], 502), ("bytes=0", [], 502), ("nonsense", [], 502)])
def test_announced_but_lost(room, announced, header, status):
    """uWSGI drops headers above 64 KB without a word."""
    room.put('{"n":1}')
    got = room.play(lambda asked: answer(200, b"", [*header, ("Stateway-Update", announced)]))
    assert got.status == status, got
    if status == 502:
        assert got.get("stateway-error") in ("update-lost", "update-syntax")
    assert room.text() == ('{"n":2}' if status == 200 else '{"n":1}')


def test_431_gets_it_by_reference_once(room):
    text = of_size(3000)
    room.put(text)
    seen = []

    def act(asked):
        seen.append((asked.get("stateway-state"), asked.get("stateway-state-info").split(";")[0]))
        if asked.get("stateway-state"):
            return answer(431)
        assert Ref(asked).get().body.decode() == text
        return answer(200, b"", [("Stateway-Patch", '{"n":1}')])
    got = room.play(act)
    assert got.status == 200, got
    assert seen == [(text, "inline"), (None, "ref")]
    assert '"n":1' in room.text()


def test_431_again_is_the_answer(room):
    room.put(of_size(3000))
    seen = []

    def act(asked):
        seen.append(asked.get("stateway-state-info"))
        return answer(431, "too much")
    got = room.play(act)
    assert (got.status, got.body) == (431, b"too much")
    assert [s.split(";")[0] for s in seen] == ["inline", "ref"]


def test_431_with_nothing_to_take_out(room):
    """No state was in the header: nothing would be gained by a repeat."""
    seen = []

    def act(asked):
        seen.append(asked.get("stateway-state-info"))
        return answer(431)
    assert room.play(act).status == 431
    assert seen == ["absent"]
    room.put(of_size(9000))
    seen.clear()
    assert room.play(act).status == 431
    assert [s.split(";")[0] for s in seen] == ["ref"]


@pytest.mark.parametrize("status", [400, 413])
def test_400_is_not_repeated(room, status):
    """The app's code may have run."""
    room.put(of_size(3000))
    seen = []

    def act(asked):
        seen.append(1)
        return answer(status)
    assert room.play(act).status == status
    assert seen == [1]


def test_431_of_a_large_body(world, room):
    """What was not kept cannot be sent again: the client gets the 431, and nothing is done twice."""
    room.put(of_size(3000))
    seen = []

    def act(asked, raw):
        if asked.target == room.path:
            seen.append(len(asked.body))
            return answer(431 if asked.get("stateway-state") else 200)
        return answer(200)
    world.origin.act = act
    got = world.post(room.path, b"x" * 30000)  # kept
    assert got.status == 200 and seen == [30000, 30000]
    seen.clear()
    got = world.post(room.path, b"x" * 300000)  # not
    assert got.status == 431 and seen == [300000]


# ---- limits ----


def large_in_use(gateway):
    for line in gateway.admin("GET", "/metrics").body.decode().splitlines():
        if line.startswith("stateway_large_bytes ") or line.startswith('stateway_large_bytes{'):
            return float(line.rpartition(" ")[2])
    return None


@pytest.mark.parametrize("second", ["set", "nothing", "staged"])
def test_what_a_failed_attempt_staged_is_not_of_the_next(gateway, second):
    """An instance stages half of its work and dies; another one gets the request. What the first had done, and still
    does, counts for nothing: the state is what the second one says."""
    refs, sides = [], []

    def act(asked, raw):
        if asked.method == "GET":
            return answer(200, json.dumps({"state": asked.get("stateway-state")}))
        if asked.method == "POST":
            return answer(200, b"", [("Stateway-Set", '{"n":1}')])
        side = Ref(asked)
        refs.append(asked.get("stateway-ref"))
        sides.append(side)
        if len(refs) == 1:
            assert side.put('{"half":1}').status == 204
            raw.close()
            return None
        late = sides[0].put('{"late":1}')
        assert late.status == 410, late
        assert json.loads(side.get().body) == {"n": 1}
        if second == "staged":
            assert side.put('{"n":2}').status == 204
        return answer(200, b"", [("Stateway-Set", '{"n":2}')] if second == "set" else [])

    origins = [Origin(act) for _ in range(2)]
    try:
        g = gateway({"apps": {"a": {"servers": [o.address for o in origins]}}, "routes": [route()]})
        path = f"/{uuid.uuid4().hex}/x"
        assert g.post(path).status == 200
        got = g.request("PUT", path, body=b"")
        assert got.status == 200, got
        assert len(refs) == 2 and refs[0] != refs[1]
        assert json.loads(g.get(path).json()["state"]) == {"n": 1 if second == "nothing" else 2}
    finally:
        for origin in origins:
            origin.close()


def test_memory_is_bounded(gateway):
    """limits.large: beyond it 503, and nothing is left behind when they have gone."""
    origin = App()
    hold = threading.Event()

    def act(asked, raw):
        if asked.get("x-put"):
            return answer(200, '{"state":{"set":' + of_size(250 * 1024) + "}}",
                          [("Content-Type", "application/stateway-commit+json")])
        if asked.get("x-hold"):
            ref = Ref(asked)
            got = ref.put(of_size(200 * 1024))
            if got.status == 204:
                hold.wait(20)
            return answer(200, str(got.status))
        if asked.get("stateway-state-info", "").startswith("ref"):
            got = Ref(asked).get()
            return answer(200, str(len(got.body)) if got.status == 200 else f"refused {got.status}")
        return answer(200, "small")
    origin.act = act
    try:
        g = gateway({"apps": {"a": {"servers": [origin.address], "limits": {"connections": 100}}},
                     "routes": [route(**{"max-size": "256KiB"})], "limits": {"large": "1MiB"},
                     "timeouts": {"response": "30s"}})
        rooms = [f"/{n}/x" for n in range(12)]
        for path in rooms[:2]:
            assert g.post(path, headers=[("X-Put", "1")]).status == 200
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            held = [pool.submit(g.post, path, headers=[("X-Hold", "1")]) for path in rooms]
            wait_for(lambda: sum(f.done() for f in held) >= 6, 10, "some are refused while others hold the memory")
            assert g.post("/free/x").status == 200  # small states need none of it
            refused = g.post("/late/x", headers=[("X-Put", "1")])
            assert (refused.status, refused.get("stateway-error")) == (503, "large-full")
            assert refused.get("retry-after")
            hold.set()
            told = sorted(f.result().body for f in held)
        assert set(told) <= {b"204", b"503"}, told
        assert 1 <= told.count(b"204") <= 5
        assert told.count(b"503") >= 6
        for _ in range(30):  # all of it came back
            assert g.post("/late/x", headers=[("X-Put", "1")]).status == 200
            assert g.get("/late/x").body == str(250 * 1024).encode()
        assert large_in_use(g) in (None, 0.0)
    finally:
        hold.set()
        origin.close()


def test_side_api_off(gateway):
    origin = App()
    origin.act = lambda asked, raw: answer(200, asked.get("stateway-ref") or "none")
    try:
        g = gateway({"apps": {"a": {"servers": [origin.address]}}, "side": {"address": "off"}, "routes": [route()]})
        assert g.get("/1/x").body == b"none"
        origin.act = lambda asked, raw: answer(200, b"", [("Stateway-Set", of_size(4097))])
        got = g.post("/1/x")
        assert (got.status, got.get("stateway-error")) == (502, "update-large")
        origin.act = lambda asked, raw: answer(200, b"", [("Stateway-Set", of_size(4096))])
        assert g.post("/1/x").status == 200
    finally:
        origin.close()


def test_survives_a_kill(gateway):
    """What was acknowledged is there, whole; what was staged is not."""
    origin = App()
    staged = threading.Event()

    def act(asked, raw):
        if asked.get("x-stage"):
            Ref(asked).put(of_size(500000, "b"))
            staged.set()
            time.sleep(1.5)
            return answer(200)
        if asked.method == "POST":
            return answer(200, '{"state":{"set":' + of_size(300000, "a") + "}}",
                          [("Content-Type", "application/stateway-commit+json")])
        return answer(200, Ref(asked).get().body)
    origin.act = act
    try:
        g = gateway({"apps": {"a": {"servers": [origin.address]}}, "routes": [route()]})
        assert g.post("/1/x").status == 200
        raw = g.connect()
        raw.send(request_bytes("POST", "/1/x", [("X-Stage", "1")], b""))
        assert staged.wait(5)
        g.kill_gateway()
        raw.close()
        assert g.get("/1/x").body.decode() == of_size(300000, "a")
    finally:
        origin.close()


def test_kills_while_large_states_are_written(gateway):
    """One letter, of one size: the old one or the new one, never a mixture; never older than what was acknowledged."""
    origin = App()

    def act(asked, raw):
        if asked.method == "GET":
            return answer(200, Ref(asked).get().body)
        n = int(asked.get("x-n"))
        text = '{"n":%d,"x":"%s"}' % (n, chr(97 + n % 26) * (100000 + n))
        if n % 2:
            got = Ref(asked).put(text)
            return answer(200 if got.status == 204 else 500)
        return answer(200, '{"state":{"set":' + text + "}}", [("Content-Type", "application/stateway-commit+json")])
    origin.act = act
    stop = threading.Event()
    acked = {n: 0 for n in range(4)}

    def write(room):
        n = 0
        while not stop.is_set():
            n += 1
            try:
                if g.post(f"/{room}/x", headers=[("X-N", str(n))]).status == 200:
                    acked[room] = n
            except (OSError, EOFError, ValueError, socket.timeout):
                pass
    try:
        g = gateway({"apps": {"a": {"servers": [origin.address]}}, "routes": [route()]})
        threads = [threading.Thread(target=write, args=(room,)) for room in acked]
        for thread in threads:
            thread.start()
        for _ in range(3):
            time.sleep(1.3)
            g.kill_gateway()
        stop.set()
        for thread in threads:
            thread.join()
        for room, n in acked.items():
            assert n > 5
            state = json.loads(g.get(f"/{room}/x").body)
            assert state["n"] >= n
            assert state["x"] == chr(97 + state["n"] % 26) * (100000 + state["n"])
    finally:
        stop.set()
        origin.close()
