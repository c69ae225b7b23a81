"""state: session over the wire: each line of docs/app-protocol.md, against an app that answers as told.

The app (an Origin) tells in its answer's body which headers it got. What it answers stands in the
request's header X-Answer (base64 of JSON: status, headers, delay, body, inc, stream).
"""
import base64
import concurrent.futures
import http.client
import json
import re
import socket
import threading
import time

import pytest

import harness
from harness import Gateway, Origin, Raw, answer, wait_for

COOKIE = re.compile(r"sid=([A-Za-z0-9_-]{43}); Path=/; HttpOnly; SameSite=Lax")
INLINE = 4096


def script(**what):
    return base64.b64encode(json.dumps(what).encode()).decode()


def respond(asked, raw):
    """Answers as X-Answer says; without it with 200 and nothing else."""
    what = json.loads(base64.b64decode(asked.get("x-answer", "e30=")))
    headers = [tuple(pair) for pair in what.get("headers", [])]
    told = {"method": asked.method, "path": asked.target, "cookie": asked.get("cookie"),
            "headers": [[k.lower(), v] for k, v in asked.headers], "body": asked.body.decode("latin-1")}
    if "inc" in what: # read, think, write: what a race would break
        state = json.loads(asked.get("stateway-state", "{}"))
        time.sleep(what["inc"])
        state["n"] = state.get("n", 0) + 1
        told["n"] = state["n"]
        headers.append(("Stateway-Set", json.dumps(state)))
    time.sleep(what.get("delay", 0))
    if "stream" in what: # a head at once, the body in pieces
        lines = "".join(f"{k}: {v}\r\n" for k, v in headers)
        raw.send(f"HTTP/1.1 200 OK\r\n{lines}Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(what["stream"]):
            raw.send("6\r\ntick.\n\r\n")
            time.sleep(0.1)
        raw.send("0\r\n\r\n")
        return None
    if what.get("close"):
        raw.close()
        return None
    status = what.get("status", 200)
    return answer(status, json.dumps(told), headers, http.client.responses.get(status, "Odd"))


def route(name, placement="session", **more):
    session = {key: more.pop(key) for key in list(more) if key not in ("csrf", "replay", "path", "state")}
    made = {"path": more.pop("path", f"/{name}/*"), "app": "o", "state": placement,
            "expose": ["verdict", "instance"], **more}
    if placement == "session":  # states above inline have tests of their own
        made["session"] = {"max-size": session.get("inline", "4KiB"), **session}
    return made


ROUTES = [
    route("s"), route("none", placement="none"), route("nocsrf", csrf="off"), route("safe", replay="safe"),
    route("idle", idle="2s", absolute="1h"), route("long", idle="20s", absolute="1h"),
    route("abs", idle="2s", absolute="3s"), route("small", inline="64"),
    route("big", inline="16KiB"),
    route("cas", concurrency="cas"), route("merge", concurrency="merge"), route("last", concurrency="last"),
    route("line", queue={"length": 2, "wait": "3s"}), route("wait", queue={"length": 64, "wait": "200ms"}),
    route("room", path="/room/{room}/*", key="path.room"), route("hdr", key="header.X-Room"),
    route("qry", key="query.room"), route("lastroom", path="/lastroom/{room}/*", key="path.room", concurrency="last"),
    route("secure", cookie={"secure": "yes", "same-site": "strict"}, path="/secure/*"),
]
# A cookie of its own where the attributes differ.
ROUTES[-1]["session"]["cookie"]["name"] = "sec"


@pytest.fixture(scope="module", params=harness.engines())
def world(request):
    """A gateway with all routes, its origin; one an engine for all tests here."""
    if request.param == "uring" and not harness.has_uring():
        pytest.skip("the kernel refuses io_uring here")
    yield from start_world(request.param)


@pytest.fixture(scope="module")
def clock():
    """The same with one engine: for tests that mostly wait."""
    yield from start_world("epoll")


def start_world(engine):
    origin = Origin(respond)
    with Gateway({"apps": {"o": {"servers": [origin.address], "limits": {"connections": 200}}},
                  "routes": ROUTES, "trusted": ["127.0.0.1"], "limits": {"head": "64KiB"}},
                 engine=engine) as gateway:
        gateway.origin = origin
        yield gateway
    origin.close()


class Visitor:
    """A browser without rendering: keeps cookies."""

    def __init__(self, gateway, base="/s", cookies=None):
        self.gateway, self.base, self.cookies = gateway, base, dict(cookies or {})

    def ask(self, method="POST", path="/", headers=(), body=None, send=(), raw=None, **what):
        """send: headers of the app's answer. What it answered stands in .told, when it was the app."""
        pairs = list(headers) + [("X-Answer", script(headers=list(send), **what))]
        if self.cookies:
            pairs.append(("Cookie", "; ".join(f"{k}={v}" for k, v in self.cookies.items())))
        if method == "POST" and body is None:
            body = b""
        got = (raw.request(method, self.base + path, pairs, body) if raw else
               self.gateway.request(method, self.base + path, pairs, body))
        for line in got.all("set-cookie"):
            name, _, value = line.split(";", 1)[0].partition("=")
            if "max-age=0" in line.lower():
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        got.told = json.loads(got.body) if got.body[:1] == b"{" else None
        got.verdict = got.get("stateway-verdict")
        return got

    def set(self, state, **more):
        text = state if isinstance(state, str) else json.dumps(state)
        return self.ask(send=[("Stateway-Set", text)] + more.pop("send", []), **more)

    def patch(self, patch, **more):
        text = patch if isinstance(patch, str) else json.dumps(patch)
        return self.ask(send=[("Stateway-Patch", text)] + more.pop("send", []), **more)

    def delete(self, **more):
        return self.ask(send=[("Stateway-Delete", "?1")], **more)

    def text(self):
        """The state as the app gets it, or None."""
        got = self.ask("GET")
        assert got.status == 200, got
        return header(got, "stateway-state")

    def state(self):
        text = self.text()
        return None if text is None else json.loads(text)

    def increment(self, pause=0.0, **more):
        return self.ask(inc=pause, **more)

    @property
    def sid(self):
        return self.cookies["sid"]

    def twin(self):
        return Visitor(self.gateway, self.base, self.cookies)


def header(got, name, default=None):
    """A header as the app got it."""
    values = [v for k, v in got.told["headers"] if k == name]
    assert len(values) <= 1, f"{name} came {len(values)} times"
    return values[0] if values else default


def refused(got, status, label):
    assert (got.status, got.get("stateway-error")) == (status, label), got
    assert got.get("cache-control") == "no-store"
    assert not got.all("set-cookie")


def metric(gateway, name):
    for line in gateway.admin("GET", "/metrics").body.decode().splitlines():
        if line.startswith(name + " "):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no metric {name}")


def commits(gateway):
    return metric(gateway, "stateway_store_commits_total")


# ---- the id ----


def test_no_write_no_cookie_no_store(world):
    visitor = Visitor(world)
    before = commits(world), metric(world, "stateway_store_loads_total")
    for method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
        got = visitor.ask(method)
        assert (got.status, got.verdict) == (200, "fresh")
        assert not got.all("set-cookie")
    assert (commits(world), metric(world, "stateway_store_loads_total")) == before


def test_first_write_makes_the_cookie(world):
    visitor = Visitor(world)
    got = visitor.set({"n": 1})
    assert got.status == 200
    assert len(got.all("set-cookie")) == 1
    assert COOKIE.fullmatch(got.get("set-cookie")), got.get("set-cookie")
    assert got.get("cache-control") == "private"
    assert got.verdict == "updated"
    assert visitor.state() == {"n": 1}
    assert not visitor.set({"n": 2}).all("set-cookie")  # once is enough
    assert visitor.state() == {"n": 2}


def test_ids_are_all_different(world):
    seen = set()
    for _ in range(20):
        visitor = Visitor(world)
        visitor.set({})
        seen.add(visitor.sid)
    assert len(seen) == 20


def test_host_prefix_over_https(world):
    visitor = Visitor(world)
    got = visitor.ask(headers=[("X-Forwarded-Proto", "https")], send=[("Stateway-Set", '{"n":1}')])
    assert re.fullmatch(r"__Host-sid=[\w-]{43}; Path=/; HttpOnly; SameSite=Lax; Secure", got.get("set-cookie"))
    got = visitor.ask("GET", headers=[("X-Forwarded-Proto", "https")])
    assert header(got, "stateway-state") == '{"n":1}'
    assert visitor.state() is None  # over plain HTTP a __Host- cookie is not looked at
    strict = Visitor(world, "/secure").set({})
    assert re.fullmatch(r"__Host-sec=[\w-]{43}; Path=/; HttpOnly; SameSite=Strict; Secure", strict.get("set-cookie"))


@pytest.mark.parametrize("value", [
    "A" * 43, base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("="), "x", "", "A" * 42, "A" * 44, "A" * 42 + "=",
    "A" * 42 + "B", "'; drop table", "%41" * 20, "A" * 4000, "a.b.c"])
def test_unknown_id_is_never_adopted(world, value):
    visitor = Visitor(world, cookies={"sid": value})
    got = visitor.ask("GET")
    assert got.status == 200
    assert header(got, "stateway-state") is None
    assert header(got, "stateway-state-info") == "absent"
    assert header(got, "stateway-version") == '"0"'
    assert got.verdict in ("fresh", "expired")
    got = visitor.set({"n": 1})
    assert got.status == 200
    assert COOKIE.fullmatch(got.get("set-cookie"))
    assert visitor.sid != value
    assert Visitor(world, cookies={"sid": value}).state() is None


def test_two_cookies_of_one_name(world):
    """Tossing from a subdomain: the order is not a defence, but nothing breaks and nothing is mixed."""
    mine, other = Visitor(world), Visitor(world)
    mine.set({"who": "mine"})
    other.set({"who": "other"})
    got = world.get("/s/", headers=[("Cookie", f"sid={mine.sid}; sid={other.sid}")])
    seen = [v for k, v in got.json()["headers"] if k == "stateway-state"]
    assert seen in (['{"who":"mine"}'], ['{"who":"other"}'], [])
    assert (mine.state(), other.state()) == ({"who": "mine"}, {"who": "other"})


def test_cookie_in_several_fields_and_places(world):
    visitor = Visitor(world)
    visitor.set({"n": 1})
    got = world.get("/s/", headers=[("Cookie", "a=1"), ("Cookie", f"sid={visitor.sid}; b=2"), ("Cookie", "c=3")])
    assert [v for k, v in got.json()["headers"] if k == "stateway-state"] == ['{"n":1}']
    cookies = "; ".join(v for k, v in got.json()["headers"] if k == "cookie")
    assert visitor.sid not in cookies
    assert all(pair in cookies for pair in ("a=1", "b=2", "c=3"))


def test_own_cookie_never_reaches_the_app(world):
    visitor = Visitor(world)
    visitor.set({})
    for spelling in ("sid={}", "__Host-sid={}", "x=1; sid={}; y=2", "sid={}; x=1", "sid={};x=1", "x=1;  sid={}"):
        got = world.get("/s/", headers=[("Cookie", spelling.format(visitor.sid))])
        assert visitor.sid not in json.dumps(got.json()), spelling
        assert ("x=1" in spelling) == (got.json()["cookie"] is not None)


# ---- what comes with a request ----


def test_headers_of_a_new_visitor(world):
    got = Visitor(world).ask("POST")
    assert header(got, "stateway-state") is None
    assert header(got, "stateway-state-info") == "absent"
    assert header(got, "stateway-version") == '"0"'
    assert header(got, "stateway-mode") == "exclusive"
    assert header(got, "stateway-verdict") == "fresh"
    assert header(got, "stateway-instance") == "o/1" == got.get("stateway-instance")
    assert header(got, "stateway-key") is None
    assert header(got, "stateway-visitor") is None


def test_headers_of_a_known_visitor(world):
    visitor = Visitor(world)
    visitor.set({"cart": ["pen"]})
    got = visitor.ask("GET")
    assert header(got, "stateway-state") == '{"cart":["pen"]}'
    assert header(got, "stateway-state-info") == "inline;type=json;size=16"
    assert re.fullmatch(r'"[0-9a-f]+-1"', header(got, "stateway-version"))
    assert header(got, "stateway-mode") == "shared"
    assert header(got, "stateway-verdict") == "kept"
    who = header(got, "stateway-visitor")
    assert re.fullmatch(r"[0-9a-f]{16}", who)
    assert header(got, "stateway-key") == f"visitor:{who}"
    assert 25000 < int(header(got, "stateway-deadline")) <= 30000
    assert visitor.sid not in json.dumps(got.told)
    got = visitor.ask("POST")
    assert header(got, "stateway-visitor") == who
    assert header(got, "stateway-mode") == "exclusive"


@pytest.mark.parametrize("method, mode", [("GET", "shared"), ("HEAD", "shared"), ("OPTIONS", "shared"),
                                          ("POST", "exclusive"), ("PUT", "exclusive"), ("PATCH", "exclusive"),
                                          ("DELETE", "exclusive"), ("FROB", "exclusive")])
def test_mode(world, method, mode):
    visitor = Visitor(world)
    visitor.set({})
    world.origin.asked.clear()
    assert visitor.ask(method).status == 200
    assert world.origin.asked[-1].get("stateway-mode") == mode


@pytest.mark.parametrize("name", ["Stateway-State", "stateway-verdict", "STATEWAY-KEY", "Stateway_State",
                                  "Stateway-State-Info", "Stateway-Instance", "Stateway-Version", "Stateway-Anything",
                                  "stateway_visitor"])
@pytest.mark.parametrize("base", ["/s", "/none"])
def test_client_cannot_send_ours(world, base, name):
    visitor = Visitor(world, base)
    visitor.set({"real": 1})
    for extra in ([], [("Connection", f"{name}, Stateway-State, Stateway-Verdict, close")]):
        got = world.get(base + "/", headers=[(name, '{"forged":1}'), ("Cookie", "; ".join(
            f"{k}={v}" for k, v in visitor.cookies.items()))] + extra)
        assert "forged" not in json.dumps(got.json()["headers"])
        told = dict(got.json()["headers"])
        if base == "/s":
            assert told["stateway-state"] == '{"real":1}'
        assert told["stateway-verdict"] == ("kept" if base == "/s" else "none")


def test_client_sees_none_of_the_apps(world):
    got = Visitor(world).set({}, send=[("Stateway-Subject", "ada"), ("Stateway-Renew", "?1"), ("Stateway-TTL", "60"),
                                       ("Stateway-Verdict", "kept"), ("Stateway-Foo", "1"), ("X-Mine", "2")])
    names = {k.lower() for k, _ in got.headers if k.lower().startswith("stateway")}
    assert names == {"stateway-verdict", "stateway-instance"}
    assert got.verdict == "updated"
    assert got.get("x-mine") == "2"


# ---- updates ----


def test_set_replaces(world):
    visitor = Visitor(world)
    visitor.set({"a": 1, "b": [1, 2]})
    visitor.set({"c": None})
    assert visitor.text() == '{"c":null}'
    visitor.set({})
    assert visitor.text() == "{}"


@pytest.mark.parametrize("before, patch, after", [
    # RFC 7396, appendix A, the rows whose target and patch are objects
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'), ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
    ('{"a":"b"}', '{"a":null}', "{}"), ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
    ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'), ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
    ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'), ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
    ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
    # spelling of numbers and escapes is kept
    ('{"x":1.0,"y":1e400,"z":-0}', '{"q":12345678901234567890.10}',
     '{"x":1.0,"y":1e400,"z":-0,"q":12345678901234567890.10}'),
    ('{"a":"\\u0065\\/"}', '{"b":1E+2}', '{"a":"\\u0065\\/","b":1E+2}'),
    ('{"\\u0061":1}', '{"a":2}', None), # one name, two spellings
])
def test_patch(world, before, patch, after):
    visitor = Visitor(world)
    visitor.set(before)
    assert visitor.text() == before
    got = visitor.patch(patch)
    assert (got.status, got.verdict) == (200, "updated")
    if after is None:
        assert visitor.state() == {"a": 2}
    else:
        assert visitor.text() == after


def test_patch_of_nothing_makes_a_state(world):
    visitor = Visitor(world)
    got = visitor.patch('{"a":1,"b":null}')
    assert COOKIE.fullmatch(got.get("set-cookie"))
    assert visitor.state() == {"a": 1}


def test_text_is_compacted_and_kept(world):
    visitor = Visitor(world)
    visitor.set('  { "a" : [ 1 , 2.50 ] , "b" : "x  y" }  ')
    assert visitor.text() == '{"a":[1,2.50],"b":"x  y"}'


def test_non_ascii_round_trip(world):
    visitor, word = Visitor(world), {"name": "Zoë € 😀 \u0000\u007f"}
    visitor.set(word)  # json.dumps escapes
    assert visitor.text().isascii()
    assert visitor.state() == word


def test_delete_is_logout(world):
    visitor = Visitor(world)
    visitor.set({"n": 1})
    stale = visitor.twin()
    got = visitor.delete()
    assert (got.status, got.verdict) == (200, "revoked")
    assert got.get("set-cookie") == "sid=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"
    assert visitor.cookies == {}
    seen = stale.ask("GET")
    assert (header(seen, "stateway-state"), header(seen, "stateway-verdict"), seen.verdict) == (None, "revoked", "revoked")
    again = stale.set({"n": 2})  # a new visitor, under a new id
    assert COOKIE.fullmatch(again.get("set-cookie"))
    assert stale.state() == {"n": 2}
    # Deleting what is not there is no error.
    assert Visitor(world).delete().status == 200


def test_delete_while_a_writer_runs(world):
    """cas: no queue, so both run. Logout wins; the writer learns it, and nothing rises again."""
    visitor = Visitor(world, "/cas")
    visitor.set({"n": 1})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(visitor.twin().set, {"n": 2}, delay=0.5)
        time.sleep(0.2)
        stale = visitor.twin()
        assert visitor.delete().status == 200
        refused(slow.result(), 409, "state-gone")
    assert stale.state() is None


def test_entity_can_be_made_again(world):
    room = Visitor(world, "/room/again")
    room.set({"n": 1})
    first = header(room.ask("GET"), "stateway-version")
    assert room.delete().status == 200
    assert room.state() is None
    got = room.set({"n": 2})
    assert got.status == 200, got
    assert room.state() == {"n": 2}
    assert header(room.ask("GET"), "stateway-version") != first


@pytest.mark.parametrize("base, limit", [("/s", INLINE), ("/small", 64), ("/big", 16384)])
def test_inline_limit(world, base, limit):
    visitor = Visitor(world, base)
    fits = '{"t":"' + "x" * (limit - 8) + '"}'
    assert len(fits) == limit
    assert visitor.set(fits).status == 200
    got = visitor.ask("GET")
    assert header(got, "stateway-state") == fits
    assert header(got, "stateway-state-info").endswith(f"size={limit}")
    refused(visitor.set(fits.replace("x", "xx", 1)), 502, "update-large")
    refused(visitor.patch({"u": 1}), 502, "update-large")
    # Blanks do not count; escapes do, as they are stored.
    assert visitor.set(fits.replace(":", ":  ", 1)).status == 200
    assert visitor.text() == fits
    assert visitor.patch({"t": "y"}).status == 200


# ---- errors: each row of the table, and that nothing was committed ----


DEEP = "[" * 63 + "]" * 63


@pytest.mark.parametrize("label, send", [
    ("update-many", [("Stateway-Set", "{}"), ("Stateway-Patch", "{}")]),
    ("update-many", [("Stateway-Set", "{}"), ("Stateway-Set", "{}")]),
    ("update-many", [("Stateway-Patch", "{}"), ("Stateway-Delete", "?1")]),
    ("update-many", [("Stateway-Delete", "?1"), ("Stateway-Delete", "?1")]),
    ("update-json", [("Stateway-Set", '{"a":1')]),
    ("update-json", [("Stateway-Set", "")]),
    ("update-json", [("Stateway-Set", '{"a":01}')]),
    ("update-json", [("Stateway-Set", "{'a':1}")]),
    ("update-json", [("Stateway-Set", '{"a":NaN}')]),
    ("update-json", [("Stateway-Set", '{"a":1}x')]),
    ("update-json", [("Stateway-Set", '{"a":1,"a":2}')]),
    ("update-json", [("Stateway-Set", '{"a":1,"\\u0061":2}')]),
    ("update-json", [("Stateway-Set", '{"a":[' + DEEP + "]}")]),
    ("update-json", [("Stateway-Patch", '{"b":{"a":1,"a":2}}')]),
    ("update-ascii", [("Stateway-Set", '{"a":"\u00e9"}')]),
    ("update-ascii", [("Stateway-Patch", '{"a":"\u00e2\u0082\u00ac"}')]),
    ("update-type", [("Stateway-Set", "[1]")]), ("update-type", [("Stateway-Set", "1")]),
    ("update-type", [("Stateway-Set", "null")]), ("update-type", [("Stateway-Patch", '"x"')]),
    ("update-type", [("Stateway-Set", ":e30=:")]),
    ("update-large", [("Stateway-Set", '{"a":"' + "x" * INLINE + '"}')]),
    ("update-syntax", [("Stateway-Delete", "true")]), ("update-syntax", [("Stateway-Renew", "1")]),
    ("update-syntax", [("Stateway-TTL", "0")]), ("update-syntax", [("Stateway-TTL", "1h")]),
    ("update-syntax", [("Stateway-Expect", "5")]), ("update-syntax", [("Stateway-Commit", "never")]),
    ("update-syntax", [("Stateway-Set", "{}"), ("Stateway-Update", "2")]),
    ("update-syntax", [("Stateway-Subject", "x" * 256)]),
    ("update-lost", [("Stateway-Update", "bytes=120")]),
    ("update-lost", [("Stateway-Update", "bytes=3"), ("Stateway-Set", "{}")]),
    ("update-alarm", [("Stateway-Alarm", "in=30000;id=turn")]),
])
def test_what_is_wrong_commits_nothing(world, label, send):
    visitor = Visitor(world)
    visitor.set({"old": True})
    before = header(visitor.ask("GET"), "stateway-version")
    if label != "update-many" and "stateway-set" not in [k.lower() for k, _ in send] and \
            "Stateway-Patch" not in [k for k, _ in send] and label in ("update-syntax", "update-alarm"):
        send = send + [("Stateway-Set", '{"new":1}')] if send[0][0] != "Stateway-Delete" else send
    refused(visitor.ask(send=send), 502, label)
    refused(visitor.ask("GET", send=send), 502, label)
    refused(Visitor(world).ask(send=send), 502, label)
    after = visitor.ask("GET")
    assert header(after, "stateway-state") == '{"old":true}'
    assert header(after, "stateway-version") == before


def test_depth_64_is_allowed(world):
    visitor = Visitor(world)
    text = '{"a":' + DEEP + "}"
    assert visitor.set(text).status == 200
    assert visitor.text() == text


def test_a_state_of_another_type_cannot_be_patched_into(world):
    visitor = Visitor(world)
    visitor.set({"a": [1]})
    visitor.patch({"a": {"b": 1}})
    assert visitor.state() == {"a": {"b": 1}}


@pytest.mark.parametrize("status, commit, committed", [
    (200, None, True), (204, None, True), (302, None, True), (404, None, True), (499, None, True),
    (500, None, False), (503, None, False), (599, None, False), (500, "always", True), (503, "always", True),
    (200, "2xx", True), (299, "2xx", True), (302, "2xx", False), (404, "2xx", False), (500, "2xx", False),
])
def test_status_decides(world, status, commit, committed):
    visitor = Visitor(world)
    visitor.set({"n": 1})
    send = [("Stateway-Commit", commit)] if commit else []
    got = visitor.set({"n": 2}, status=status, send=send)
    assert got.status == status
    assert visitor.state() == {"n": 2 if committed else 1}
    assert got.verdict == ("updated" if committed else "kept")
    fresh = Visitor(world)
    got = fresh.set({"n": 2}, status=status, send=send)
    assert bool(got.all("set-cookie")) == committed


def test_app_dies_before_its_head(world):
    visitor = Visitor(world)
    visitor.set({"n": 1})
    refused(visitor.ask(send=[("Stateway-Set", '{"n":2}')], close=1), 502, "app-closed")
    assert visitor.state() == {"n": 1}


def test_update_on_a_stateless_route_is_dropped(world):
    got = Visitor(world, "/none").set({"n": 1})
    assert (got.status, got.verdict) == (200, "none")
    assert not got.all("set-cookie")
    assert not any(k.lower() == "stateway-set" for k, _ in got.headers)


# ---- versions ----


def test_versions_and_expect(world):
    visitor = Visitor(world)
    assert visitor.set({"n": 1}, send=[("Stateway-Expect", '"0"')]).status == 200
    version = header(visitor.ask("GET"), "stateway-version")
    refused_conflict(visitor.set({"n": 9}, send=[("Stateway-Expect", '"0"')]))
    assert visitor.set({"n": 2}, send=[("Stateway-Expect", version)]).status == 200
    refused_conflict(visitor.set({"n": 9}, send=[("Stateway-Expect", version)]))
    refused_conflict(visitor.ask(send=[("Stateway-Expect", version), ("Stateway-Delete", "?1")]))
    refused_conflict(Visitor(world).set({"n": 9}, send=[("Stateway-Expect", version)]))
    got = visitor.ask("GET")
    assert header(got, "stateway-state") == '{"n":2}'
    epoch, count = header(got, "stateway-version").strip('"').split("-")
    assert version.strip('"') == f"{epoch}-{int(count) - 1}"


def refused_conflict(got):
    refused(got, 409, "conflict")


def test_reads_do_not_change_the_version(world):
    visitor = Visitor(world)
    visitor.set({"n": 1})
    version = header(visitor.ask("GET"), "stateway-version")
    for method in ("GET", "POST", "OPTIONS"):
        assert header(visitor.ask(method), "stateway-version") == version


# ---- time ----


def test_idle_time_ends_it(clock):
    visitor = Visitor(clock, "/idle")
    visitor.set({"n": 1})
    stale = visitor.twin()
    time.sleep(3.1)
    got = visitor.ask("GET")
    assert (header(got, "stateway-state"), header(got, "stateway-verdict"), got.verdict) == (None, "expired", "expired")
    got = visitor.set({"n": 2})
    assert COOKIE.fullmatch(got.get("set-cookie"))
    assert visitor.sid != stale.sid
    assert stale.state() is None


def test_reading_keeps_it_and_absolute_ends_it(clock):
    idle, absolute = Visitor(clock, "/idle"), Visitor(clock, "/abs")
    absolute.set({"n": 1})
    idle.set({"n": 1})
    for _ in range(7):  # seconds are whole: two of them may be little more than one
        time.sleep(0.6)
        assert idle.state() == {"n": 1}  # touched
        absolute.ask("GET")
    assert absolute.state() is None
    assert absolute.ask("GET").verdict == "expired"


def test_writing_does_not_move_the_absolute_end(clock):
    visitor = Visitor(clock, "/abs")
    visitor.set({"n": 0})
    first = visitor.sid
    for n in range(5):
        time.sleep(0.9)
        visitor.set({"n": n})
    assert visitor.sid != first


def test_touch_only_past_a_tenth(clock):
    visitor = Visitor(clock, "/long")  # 20 s: a touch every 2 s at most
    visitor.set({"n": 1})
    before = commits(clock)
    for _ in range(10):
        assert visitor.state() == {"n": 1}
    assert commits(clock) == before
    time.sleep(3.1)
    for _ in range(5):
        visitor.ask("GET")
    assert commits(clock) - before in (1, 2)


def test_ttl(clock):
    """Instead of the route's idle: longer or shorter, and reading does not change it."""
    short, long, back = Visitor(clock, "/long"), Visitor(clock, "/idle"), Visitor(clock, "/idle")
    short.set({"n": 1}, send=[("Stateway-TTL", "4")])
    long.set({"n": 1}, send=[("Stateway-TTL", "8")])
    back.set({"n": 1}, send=[("Stateway-TTL", "8")])
    back.set({"n": 2})  # a write without it: the route's idle again
    time.sleep(2.2)
    assert short.state() == long.state() == {"n": 1}  # would be touched here
    time.sleep(1.9)
    assert back.state() is None
    time.sleep(0.6)
    assert short.state() is None
    assert long.state() == {"n": 1}


def test_ttl_can_be_given_again(clock):
    visitor = Visitor(clock, "/long")
    visitor.set({"n": 1}, send=[("Stateway-TTL", "2")])
    visitor.set({"n": 2}, send=[("Stateway-TTL", "60")])
    time.sleep(3.1)
    assert visitor.state() == {"n": 2}
    visitor.set({"n": 3})
    assert visitor.state() == {"n": 3}


# ---- renewal ----


def test_renew(clock):
    visitor = Visitor(clock)
    visitor.set({"n": 1})
    old = visitor.twin()
    got = visitor.set({"n": 2}, send=[("Stateway-Renew", "?1")])
    assert COOKIE.fullmatch(got.get("set-cookie"))
    assert visitor.sid != old.sid
    assert visitor.state() == {"n": 2} == old.state()  # for the parallel requests of a page
    assert old.twin().set({"n": 3}).status == 200
    assert visitor.state() == {"n": 3} == old.state()  # one state, no fork
    assert not old.ask("GET").all("set-cookie")
    time.sleep(11.1)
    assert old.state() is None
    assert visitor.state() == {"n": 3}
    new = old.twin()
    assert COOKIE.fullmatch(new.set({"n": 9}).get("set-cookie"))
    assert visitor.state() == {"n": 3}


def test_renew_alone_and_with_patch(world):
    visitor = Visitor(world)
    visitor.set({"n": 1})
    old = visitor.sid
    got = visitor.ask(send=[("Stateway-Renew", "?1")])
    assert got.verdict == "updated"
    assert visitor.sid != old
    assert visitor.state() == {"n": 1}
    old = visitor.sid
    visitor.patch({"m": 2}, send=[("Stateway-Renew", "?1")])
    assert visitor.sid != old
    assert visitor.state() == {"n": 1, "m": 2}
    assert not Visitor(world).ask(send=[("Stateway-Renew", "?1")]).all("set-cookie")  # nobody to renew
    old = visitor.sid
    visitor.ask(send=[("Stateway-Renew", "?0")])
    assert visitor.sid == old


def test_change_of_subject_renews(world):
    visitor = Visitor(world)
    visitor.set({"n": 1})
    seen = [visitor.sid]
    for subject, renews in (("alice", True), ("alice", False), ("bob", True), ("", True), ("", False)):
        assert visitor.ask(send=[("Stateway-Subject", subject)]).status == 200
        assert (visitor.sid not in seen) == renews, subject
        seen.append(visitor.sid)
        assert visitor.state() == {"n": 1}
        visitor.patch({})
        assert visitor.sid == seen[-1]  # an update without the header leaves the subject


def test_logout_through_the_old_id(world):
    visitor = Visitor(world)
    visitor.set({"n": 1})
    old = visitor.twin()
    visitor.ask(send=[("Stateway-Renew", "?1")])
    assert old.delete().status == 200
    assert visitor.state() is None


def test_renewals_in_a_row_within_the_grace(world):
    """Also the id before the last one leads to the state: a page's requests may be slower than its logins."""
    visitor = Visitor(world)
    visitor.set({"n": 1})
    first = visitor.twin()
    for _ in range(3):
        visitor.ask(send=[("Stateway-Renew", "?1")])
    visitor.set({"n": 2})
    assert first.state() == visitor.state() == {"n": 2}


def test_old_and_new_id_stand_in_one_line(world):
    visitor = Visitor(world)
    visitor.set({"n": 0})
    old = visitor.twin()
    visitor.ask(send=[("Stateway-Renew", "?1")])
    got = in_parallel(30, lambda i: (visitor if i % 2 else old).twin().increment(0.005))
    assert [r.status for r in got] == [200] * 30
    assert visitor.state() == {"n": 30}


@pytest.mark.parametrize("base", ["/s", "/last", "/merge", "/cas"])
def test_no_fork_when_a_renewal_and_a_write_cross(world, base):
    """An old request, running while the id is renewed: its write reaches the one state or is refused."""
    visitor = Visitor(world, base)
    visitor.set({"n": 0})
    old = visitor.twin()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        slow = pool.submit(old.twin().patch, {"slow": 1}, delay=0.5)
        time.sleep(0.2)
        renewed = pool.submit(visitor.ask, send=[("Stateway-Renew", "?1")])
        results = slow.result(), renewed.result()
    assert all(r.status in (200, 409) for r in results), results
    assert results[0].status == 200 or base == "/cas"
    seen = visitor.state()
    assert old.state() == seen
    assert seen == ({"n": 0, "slow": 1} if results[0].status == 200 else {"n": 0})


@pytest.mark.parametrize("base", ["/s", "/last", "/merge", "/cas"])
def test_logout_wins_over_a_renewal(world, base):
    """The logout was on its way with the old id: when it is answered, the new id is dead as well."""
    visitor = Visitor(world, base)
    visitor.set({"n": 0})
    old = visitor.twin()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        slow = pool.submit(old.twin().delete, delay=0.5)
        time.sleep(0.2)
        renewed = pool.submit(visitor.ask, send=[("Stateway-Renew", "?1")])
        assert renewed.result().status in (200, 409)
        assert slow.result().status == 200
    assert visitor.state() is None
    assert old.state() is None


# ---- caches ----


@pytest.mark.parametrize("given", [None, "public, max-age=600", "no-store", "private", "s-maxage=60"])
def test_answers_with_a_cookie_enter_no_shared_cache(world, given):
    send = [("Cache-Control", given)] if given else []
    got = Visitor(world).set({}, send=send)
    tokens = {t.strip() for value in got.all("cache-control") for t in value.split(",")}
    assert tokens & {"private", "no-store"}
    assert not any(t == "public" or t.startswith("s-maxage") for t in tokens)
    visitor = Visitor(world)
    visitor.set({})
    assert visitor.set({}, send=send).get("cache-control") == given  # no cookie: the app's own word


# ---- entities ----


def test_path_key(world):
    a, b = Visitor(world, "/room/a"), Visitor(world, "/room/b")
    assert not a.set({"n": 1}).all("set-cookie")
    b.set({"n": 2})
    assert (a.state(), b.state()) == ({"n": 1}, {"n": 2})
    got = a.ask("GET")
    assert header(got, "stateway-key") == "room:a"
    assert header(got, "stateway-verdict") == "kept"
    assert header(got, "stateway-visitor") is None
    assert header(Visitor(world, "/room/new").ask("GET"), "stateway-verdict") == "fresh"


@pytest.mark.parametrize("path, key", [
    ("/room/%61", "room:a"), ("/room/a%20b", "room:a%20b"), ("/room/a%2Fb", "room:a%2Fb"),
    ("/room/%C3%A9", "room:%C3%A9"), ("/room/~.-_", "room:~.-_"), ("/room/a:b", "room:a%3Ab"),
    ("/room/%41%2f", "room:A%2F"), ("/room/" + "x" * 512, "room:" + "x" * 512),
])
def test_percent_encoding_of_keys(world, path, key):
    got = Visitor(world, path).set({"at": key})
    assert got.status == 200
    assert header(got, "stateway-key") == key
    assert Visitor(world, "/room/" + key[5:]).state() == {"at": key}


@pytest.mark.parametrize("path", ["/room/a%zz", "/room/" + "x" * 513, "/room/%", "/room/a%4"])
def test_keys_that_are_none(world, path):
    got = Visitor(world, path).ask("GET")
    assert got.status == 400


@pytest.mark.parametrize("base, headers, query, key", [
    ("/hdr", [("X-Room", "42")], "", "X-Room:42"), ("/hdr", [("x-room", "a b")], "", "X-Room:a%20b"),
    ("/hdr", [("X-Room", "a%20b")], "", "X-Room:a%2520b"), ("/qry", [], "?room=7", "room:7"),
    ("/qry", [], "?x=1&room=a%26b&y", "room:a%26b"), ("/qry", [], "?xroom=1&room=2", "room:2"),
])
def test_header_and_query_keys(world, base, headers, query, key):
    got = Visitor(world, base).ask(path="/" + query, headers=headers, send=[("Stateway-Set", '{"n":1}')])
    assert (got.status, header(got, "stateway-key").lower()) == (200, key.lower())
    got = Visitor(world, base).ask("GET", path="/" + query, headers=headers)
    assert header(got, "stateway-state") == '{"n":1}'


@pytest.mark.parametrize("base, query", [("/hdr", ""), ("/qry", ""), ("/qry", "?room="), ("/qry", "?room"), ("/qry", "?rooms=1"),
                                         ("/qry", "?room=%")])
def test_missing_key(world, base, query):
    for method in ("GET", "POST"):
        refused(Visitor(world, base).ask(method, path="/" + query), 400, "key")


def test_one_id_of_three_kinds_is_three_states(world):
    Visitor(world, "/room/7").set({"kind": "path"})
    assert Visitor(world, "/hdr").ask("GET", headers=[("X-Room", "7")]).verdict == "fresh"


# ---- parallel requests ----


def in_parallel(count, work):
    """Results of work(0), work(1), ... begun at one moment; half of them on each worker, more or less."""
    barrier = threading.Barrier(count)

    def one(i):
        barrier.wait()
        return work(i)

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@pytest.mark.parametrize("base", ["/s", "/room/parallel"])
def test_fifty_increments(world, base):
    visitor = Visitor(world, base)
    visitor.set({"n": 0})
    got = in_parallel(50, lambda _: visitor.twin().increment(0.002))
    assert [r.status for r in got] == [200] * 50
    assert sorted(r.told["n"] for r in got) == list(range(1, 51))
    assert visitor.state() == {"n": 50}


def test_fifty_reads_that_write(world):
    visitor = Visitor(world)
    visitor.set({"n": 0})
    before = metric(world, "stateway_reruns_total")
    got = in_parallel(50, lambda _: visitor.twin().ask("GET", inc=0.002))
    assert [r.status for r in got] == [200] * 50
    assert sorted(r.told["n"] for r in got) == list(range(1, 51))
    assert visitor.state() == {"n": 50}
    assert metric(world, "stateway_reruns_total") > before


def test_a_read_that_writes_is_overtaken_again_and_again(world):
    """It is run again until it is first, also when it stands in the queue: other reads do not."""
    visitor = Visitor(world)
    visitor.set({"n": 0})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(visitor.twin().ask, "GET", inc=0.3)
        ends, fast = time.monotonic() + 1, 0
        while time.monotonic() < ends:
            fast += visitor.ask("GET", inc=0).status == 200
        assert slow.result().status == 200
    assert visitor.state() == {"n": fast + 1}


def test_reads_and_writes_that_write(world):
    visitor = Visitor(world, "/safe")
    visitor.set({"n": 0})
    got = in_parallel(30, lambda i: visitor.twin().ask("GET" if i % 2 else "POST", inc=0.002))
    good = [r for r in got if r.status == 200]
    assert all(r.status in (200, 409) for r in got)
    assert len(good) == 30, "replay: safe lets the gateway run a writer again"
    assert visitor.state() == {"n": len(good)}


def test_keys_do_not_wait_for_each_other(world):
    visitors = [Visitor(world) for _ in range(20)]
    for visitor in visitors:
        visitor.set({"n": 0})
    began = time.monotonic()
    got = in_parallel(20, lambda i: visitors[i].increment(0.5))
    assert [r.told["n"] for r in got] == [1] * 20
    assert time.monotonic() - began < 5


def test_first_come_first_served(world):
    visitor = Visitor(world)
    visitor.set({"n": 0})
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        running = []
        for _ in range(8):
            running.append(pool.submit(visitor.twin().increment, 0.15))
            time.sleep(0.1)
        assert [r.result().told["n"] for r in running] == list(range(1, 9))


def test_a_reader_is_not_blocked(world):
    visitor = Visitor(world)
    visitor.set({"n": 0})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(visitor.twin().increment, 1.5)
        time.sleep(0.3)
        began = time.monotonic()
        got = visitor.ask("GET")
        assert time.monotonic() - began < 0.9
        assert header(got, "stateway-state") == '{"n":0}'
        assert not slow.done()
        assert slow.result().status == 200
    assert visitor.state() == {"n": 1}


def test_queue_full(world):
    visitor = Visitor(world, "/line")  # one runs, two wait
    visitor.set({"n": 0})
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        running = [pool.submit(visitor.twin().increment, 0.7) for _ in range(3)]
        time.sleep(0.4)
        got = visitor.increment()
        refused(got, 503, "queue-full")
        assert got.get("retry-after") == "1"
        assert Visitor(world, "/line").increment().status == 200  # others are not concerned
        assert [r.result().status for r in running] == [200] * 3
    assert visitor.state() == {"n": 3}


def test_queue_wait(world):
    visitor = Visitor(world, "/wait")
    visitor.set({"n": 0})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(visitor.twin().increment, 1)
        time.sleep(0.3)
        began = time.monotonic()
        got = visitor.increment()
        refused(got, 503, "queue-wait")
        assert got.get("retry-after") == "1"
        assert 0.15 < time.monotonic() - began < 0.7
        assert slow.result().status == 200
    assert visitor.increment().told["n"] == 2


def test_a_stream_holds_nothing(world):
    visitor = Visitor(world)
    visitor.set({"n": 0})
    with world.connect() as raw:
        raw.send(harness.request_bytes("POST", "/s/", [
            ("Cookie", f"sid={visitor.sid}"), ("X-Answer", script(
                stream=15, headers=[("Stateway-Set", '{"n":1}'), ("Content-Type", "text/event-stream")]))], b""))
        head = raw.read_head()
        assert head.status == 200
        assert visitor.state() == {"n": 1}  # durable before the first byte
        began = time.monotonic()
        assert visitor.increment().told["n"] == 2
        assert time.monotonic() - began < 1
        assert raw.read_body(head).body == b"tick.\n" * 15


@pytest.mark.parametrize("reset", [False, True])
def test_client_that_leaves_the_queue(world, reset):
    visitor = Visitor(world, "/line")
    visitor.set({"n": 0})
    ask = harness.request_bytes("POST", "/line/", [("Cookie", f"sid={visitor.sid}"), ("X-Answer", script(inc=0))], b"")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(visitor.twin().increment, 1.2)
        time.sleep(0.2)
        for _ in range(6):  # were they not taken out, the queue were full after two
            raw = world.connect()
            raw.send(ask)
            time.sleep(0.05)
            (raw.reset if reset else raw.close)()
            time.sleep(0.05)
        assert slow.result().told["n"] == 1
    assert visitor.increment().told["n"] == 2


def test_client_that_leaves_after_the_app_began(world):
    """What the app did is kept, though nobody reads the answer."""
    visitor = Visitor(world)
    visitor.set({"n": 0})
    raw = world.connect()
    raw.send(harness.request_bytes("POST", "/s/", [("Cookie", f"sid={visitor.sid}"), ("X-Answer", script(inc=0.4))], b""))
    time.sleep(0.2)
    raw.reset()
    wait_for(lambda: visitor.state() == {"n": 1}, 3)
    assert visitor.increment().told["n"] == 2


def test_pipelined_writes(world):
    visitor = Visitor(world)
    visitor.set({"n": 0})
    one = harness.request_bytes("POST", "/s/", [("Cookie", f"sid={visitor.sid}"), ("X-Answer", script(inc=0))], b"ab")
    with world.connect() as raw:
        raw.send(one * 10)
        assert [raw.read().json()["n"] for _ in range(10)] == list(range(1, 11))
        raw.send(one * 5, cut=7)
        assert [raw.read().json()["n"] for _ in range(5)] == list(range(11, 16))
    assert visitor.state() == {"n": 15}


def test_own_errors_keep_the_connection(world):
    visitor = Visitor(world)
    visitor.set({"n": 0})
    with world.connect() as raw:
        for _ in range(3):
            refused(visitor.set("nonsense", raw=raw), 502, "update-json")
            assert visitor.increment(raw=raw).status == 200
    assert visitor.state() == {"n": 3}


def test_cas(world):
    visitor = Visitor(world, "/cas")
    visitor.set({"n": 0})
    got = in_parallel(8, lambda _: visitor.twin().increment(0.3))
    good = [r for r in got if r.status == 200]
    for r in got:
        if r.status != 200:
            refused(r, 409, "conflict")
    assert 1 <= len(good) < 8
    assert visitor.state() == {"n": len(good)}


def test_merge(world):
    visitor = Visitor(world, "/merge")
    visitor.set({"n": 0})
    got = in_parallel(12, lambda i: visitor.twin().patch({f"k{i}": i}, delay=0.1))
    assert [r.status for r in got] == [200] * 12
    assert visitor.state() == {"n": 0, **{f"k{i}": i for i in range(12)}}
    # Set cannot be merged.
    got = in_parallel(4, lambda i: visitor.twin().set({"n": i}, delay=0.3))
    assert sorted(r.status for r in got)[0] == 200
    assert {r.status for r in got} <= {200, 409}


@pytest.mark.parametrize("base", ["/last", "/lastroom/7"])
def test_last(world, base):
    visitor = Visitor(world, base)
    visitor.set({"n": -1})
    got = in_parallel(6, lambda i: visitor.twin().set({"n": i}, delay=0.2))
    assert [r.status for r in got] == [200] * 6
    assert visitor.state()["n"] in range(6)


def test_last_first_writers_of_an_entity(world):
    room = Visitor(world, "/lastroom/first")
    got = in_parallel(6, lambda i: room.twin().set({"n": i}, delay=0.2))
    assert [r.status for r in got] == [200] * 6


def test_merge_does_not_revive_the_dead(world):
    """Logout between a patch's load and its commit, with a conflict before: it stays dead."""
    for _ in range(5):
        visitor = Visitor(world, "/merge")
        visitor.set({"n": 0})
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            slow = pool.submit(visitor.twin().patch, {"late": 1}, delay=0.2)
            time.sleep(0.05)
            assert visitor.twin().patch({"m": 1}).status == 200
            assert visitor.twin().delete().status == 200
            refused(slow.result(), 409, "state-gone")
        assert visitor.state() is None


# ---- other sites ----


@pytest.mark.parametrize("headers, allowed", [
    ([("Sec-Fetch-Site", "same-origin")], True), ([("Sec-Fetch-Site", "none")], True),
    ([("Sec-Fetch-Site", "cross-site")], False), ([("Sec-Fetch-Site", "same-site")], False),
    ([("Origin", "http://localhost")], True), ([("Origin", "http://evil.example")], False), ([("Origin", "null")], False),
    ([("Origin", "http://localhost.evil.example")], False), ([], True),
    ([("Sec-Fetch-Site", "same-origin"), ("Origin", "http://evil.example")], True),
])
def test_csrf(world, headers, allowed):
    visitor = Visitor(world)
    visitor.set({"n": 0})
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        got = visitor.ask(method, headers=headers)
        if allowed:
            assert got.status == 200
        else:
            refused(got, 403, "cross-site")
    assert visitor.ask("GET", headers=headers).status == 200
    assert Visitor(world, "/nocsrf", visitor.cookies).ask("POST", headers=headers).status == 200
    assert Visitor(world).ask("POST", headers=headers).status == 200  # no cookie: nothing to abuse
    assert Visitor(world, "/room/csrf").ask("POST", headers=headers).status == 200


@pytest.mark.parametrize("method, early, status", [
    ("POST", "1", 425), ("PUT", "1", 425), ("DELETE", "1", 425), ("GET", "1", 200), ("POST", "0", 200), ("POST", None, 200)])
def test_early_data_is_no_write(world, method, early, status):
    """A proxy tells that a request came before its handshake was over: anybody may have sent it again (RFC 8470)."""
    visitor = Visitor(world)
    visitor.set({"n": 1})
    got = world.request(method, "/s", [("Early-Data", early)] if early else [], b"" if method != "GET" else None,
                        cookies=dict(visitor.cookies))
    assert got.status == status, got
    assert (got.get("stateway-error") == "too-early") == (status == 425)


def test_csrf_behind_a_proxy(world):
    visitor = Visitor(world)
    visitor.set({"n": 0})
    forwarded = [("X-Forwarded-Host", "shop.example"), ("Origin", "https://shop.example")]
    assert visitor.ask("POST", headers=forwarded).status == 200
    refused(visitor.ask("POST", headers=[forwarded[0], ("Origin", "https://localhost")]), 403, "cross-site")


# ---- durable before it is answered ----


def crash_config(origin, **more):
    return {"apps": {"o": {"servers": [origin.address]}}, "routes": [route("s")], **more}


def test_answered_is_durable(gateway, engine, origin):
    """The gateway process is killed in the moment an answer was read."""
    app = origin(respond)
    g = gateway(crash_config(app), engine=engine)
    visitor = Visitor(g)
    for n in range(1, 6):
        assert visitor.increment().told["n"] == n
        g.kill_gateway()
        assert visitor.state() == {"n": n}
        time.sleep(1.05)  # it lived for a second: the next restart is immediate again


def test_versions_and_ends_outlive_the_gateway(gateway, engine, origin):
    app = origin(respond)
    g = gateway(crash_config(app), engine=engine)
    visitor, ended = Visitor(g), Visitor(g)
    visitor.set({"n": 1})
    ended.set({"n": 1})
    stale, before = ended.twin(), visitor.ask("GET")
    ended.delete()
    g.kill_gateway()
    after = visitor.ask("GET")
    assert header(after, "stateway-version") == header(before, "stateway-version")
    assert header(after, "stateway-visitor") == header(before, "stateway-visitor")
    assert stale.ask("GET").verdict == "revoked"


def test_verdicts_in_the_access_log(gateway, origin):
    app = origin(respond)
    g = gateway({**crash_config(app), "log": {"access": "stdout", "format": "json"}})
    visitor = Visitor(g)
    visitor.ask("GET")
    visitor.set({"n": 1})
    visitor.ask("GET")
    visitor.set({"n": 2}, send=[("Stateway-Expect", '"0"')])
    stale = visitor.twin()
    visitor.delete()
    stale.ask("GET")
    Visitor(g, cookies={"sid": "A" * 43}).ask("GET")
    visitor.set("nonsense")

    def lines():
        return [json.loads(line) for line in g.out.read_text().splitlines() if line.startswith("{") and '"verdict"' in line]

    wait_for(lambda: len(lines()) >= 8, 5, "eight lines of access log")
    assert [line["verdict"] for line in lines()][:7] == [
        "fresh", "updated", "kept", "conflicted", "revoked", "revoked", "expired"]
    text = json.dumps(lines())
    assert stale.sid not in text
    assert "update-json" in text
