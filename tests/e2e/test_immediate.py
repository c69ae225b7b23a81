"""?immediate=1 of the side API: a write that does not wait for the app's answer. Durable when it is answered."""
import json
import threading
import uuid

import pytest

import harness
from harness import Gateway, answer
from test_large_states import JSON, MERGE, TAG, App, Ref, envelope, of_size

NOW = "?immediate=1"


class Now(Ref):
    """The same reference, and writes on it that commit at once."""

    def now(self, method, body=None, headers=None):
        headers = headers if headers is not None else {"PUT": (JSON,), "PATCH": (MERGE,)}.get(method, ())
        return self.ask(method, body, headers, self.path + NOW)


class World:
    def __init__(self, gateway, origin):
        self.gateway, self.origin = gateway, origin

    def play(self, path, act, method="POST", **options):
        """The app plays act(asked) for the next request to path; what goes wrong in it fails the test."""
        wrong = []

        def careful(asked, raw):
            if asked.target != path:
                return answer(200)
            try:
                return act(asked)
            except AssertionError as e:
                wrong.append(e)
                return answer(599)
        self.origin.act = careful
        got = self.gateway.request(method, path, body=b"" if method == "POST" else None, **options)
        if wrong:
            raise wrong[0]
        return got

    def beside(self, path, act, method="GET"):
        """Another request to path, while one is played: what the app sees by act, which answers."""
        before, told = self.origin.act, {}

        def careful(asked, raw):
            told["asked"] = asked
            return act(asked)
        self.origin.act = careful
        got = self.gateway.request(method, path, body=b"" if method == "POST" else None)
        self.origin.act = before
        return got, told["asked"]

    def state(self, path, **options):
        told = {}

        def look(asked):
            info = asked.get("stateway-state-info")
            told["text"] = Ref(asked).get().body.decode() if info.startswith("ref") else asked.get("stateway-state")
            told["version"] = asked.get("stateway-version")
            return answer(200)
        assert self.play(path, look, "GET", **options).status == 200
        return told["text"]


def routes():
    return [{"path": "/{room}/" + tail, "app": "a", "state": "session", "expose": ["verdict"],
             "session": {"key": "path.room", "alarm": "/alarms", **more}}
            for tail, more in (("x", {}), ("small", {"max-size": "8KiB"}), ("cas", {"concurrency": "cas"}),
                               ("merge", {"concurrency": "merge"}))] + [
        {"path": "/v/*", "app": "a", "state": "session", "session": {"encrypt": "on"}}]


@pytest.fixture(scope="module", params=harness.engines())
def world(request):
    if request.param == "uring" and not harness.has_uring():
        pytest.skip("the kernel refuses io_uring here")
    origin = App()
    with Gateway({"apps": {"a": {"servers": [origin.address]}}, "routes": routes(),
                  "timeouts": {"response": "5s"}}, engine=request.param) as gateway:
        yield World(gateway, origin)
    origin.close()


@pytest.fixture
def path(world):
    return f"/{uuid.uuid4().hex}/x"


def set_state(world, path, text, **options):
    assert world.play(path, lambda asked: answer(200, b"", [("Stateway-Set", text)]), **options).status == 200


@pytest.mark.parametrize("size", [20, 4096, 4097, 100000])
def test_others_see_it_before_the_answer(world, path, size):
    text = of_size(size)

    def act(asked):
        ref = Now(asked)
        got = ref.now("PUT", text)
        assert (got.status, bool(TAG.fullmatch(got.get("etag") or ""))) == (204, True), got
        _, other = world.beside(path, lambda asked: answer(200))
        assert other.get("stateway-version") == got.get("etag")
        assert f"size={size}" in other.get("stateway-state-info")
        assert (ref.get().body.decode(), ref.get().get("etag")) == (text, got.get("etag"))
        return answer(500)  # and it stands, whatever the answer is
    assert world.play(path, act).status == 500
    assert world.state(path) == text


def test_the_answers_own_commit_meets_no_conflict(world, path):
    """For each way an answer updates: on what was written at once, not beside it."""
    set_state(world, path, '{"n":0}')
    ends = [
        (lambda tag: answer(200, b"", [("Stateway-Patch", '{"end":1}')]), lambda n: {"n": n, "end": 1}),
        (lambda tag: answer(200, b"", [("Stateway-Set", '{"only":1}')]), lambda n: {"only": 1}),
        (lambda tag: answer(200, b"", [("Stateway-Patch", '{"end":2}'), ("Stateway-Expect", tag)]),
         lambda n: {"n": n, "end": 2}),
        (lambda tag: envelope({"patch": {"end": 3}}, {"status": 200}), lambda n: {"n": n, "end": 3}),
        (lambda tag: answer(200, b""), lambda n: {"n": n}),
    ]
    for end, want in ends:
        def act(asked):
            ref = Now(asked)
            assert ref.now("PUT", '{"n":0}').status == 204
            for n in range(1, 6):
                got = ref.now("PATCH", json.dumps({"n": n}))
                assert got.status == 204, got
            return end(got.get("etag"))
        assert world.play(path, act).status == 200
        assert json.loads(world.state(path)) == want(5)


def test_what_was_staged_stays_staged(world, path):
    set_state(world, path, '{"a":1}')

    def act(asked):
        ref = Now(asked)
        assert ref.put('{"staged":1}').status == 204
        got = ref.now("PATCH", '{"b":2}')
        assert got.status == 204
        assert json.loads(ref.get().body) == {"staged": 1}  # its own view
        _, other = world.beside(path, lambda asked: answer(200))
        assert json.loads(other.get("stateway-state")) == {"a": 1, "b": 2}
        return answer(200)
    assert world.play(path, act).status == 200
    assert json.loads(world.state(path)) == {"staged": 1}

    def fails(asked):
        ref = Now(asked)
        assert ref.put('{"lost":1}').status == 204
        assert ref.now("PATCH", '{"c":3}').status == 204
        return answer(500)
    assert world.play(path, fails).status == 500
    assert json.loads(world.state(path)) == {"staged": 1, "c": 3}


def test_conditions(world, path):
    def act(asked):
        ref = Now(asked)
        assert ref.now("PUT", '{"n":1}', (JSON, ("If-Match", "*"))).status == 412
        assert ref.now("PUT", '{"n":1}', (JSON, ("If-None-Match", "*"))).status == 204
        assert ref.now("PUT", '{"n":2}', (JSON, ("If-None-Match", "*"))).status == 412
        assert ref.now("PUT", '{"n":2}', (JSON, ("If-Match", '"0"'))).status == 412
        tag = ref.get().get("etag")
        assert ref.put('{"staged":1}').status == 204
        assert ref.now("PUT", '{"n":2}', (JSON, ("If-Match", ref.get().get("etag")))).status == 412  # a staged one's
        got = ref.now("PUT", '{"n":2}', (JSON, ("If-Match", tag)))
        assert got.status == 204 and got.get("etag") != tag
        assert ref.now("PUT", '{"n":3}', (JSON, ("If-Match", tag))).status == 412
        assert ref.delete().status == 204  # staged again: nothing of it is to stay
        return answer(500)
    assert world.play(path, act).status == 500
    assert world.state(path) == '{"n":2}'


def test_refusals(world, path):
    def act(asked):
        ref = Now(asked)
        for method, body, headers, status, label in (
                ("PUT", "[]", (JSON,), 422, "update-type"),
                ("PUT", "{", (JSON,), 422, "update-json"),
                ("PUT", "{}", (("Content-Type", "text/plain"),), 415, "stage-media"),
                ("PATCH", "{}", (JSON,), 415, "stage-media")):
            got = ref.now(method, body, headers)
            assert (got.status, got.get("stateway-error")) == (status, label), got
        for query in ("?immediate", "?immediate=0", "?immediate=1&x", "?x"):
            assert ref.ask("PUT", "{}", (JSON,), ref.path + query).status == 400
        assert ref.ask("GET", path=ref.path + NOW).status == 400
        return answer(200)
    assert world.play(path, act).status == 200

    def small(asked):
        got = Now(asked).now("PUT", of_size(9000))
        assert (got.status, got.get("stateway-error")) == (413, "update-large")
        return answer(200)
    assert world.play(path[:-1] + "small", small).status == 200

    def shared(asked):
        assert asked.get("stateway-mode") == "shared"
        for method, body in (("PUT", "{}"), ("PATCH", "{}"), ("DELETE", None)):
            got = Now(asked).now(method, body)
            assert (got.status, got.get("stateway-error")) == (409, "stage-shared")
        return answer(200)
    set_state(world, path, '{"a":1}')
    assert world.play(path, shared, "GET").status == 200
    assert world.state(path) == '{"a":1}'


def test_dead_reference(world, path):
    refs = []
    assert world.play(path, lambda asked: refs.append(Now(asked)) or answer(200)).status == 200
    assert refs[0].now("PUT", "{}").status == 410
    assert world.state(path) is None


def test_somebody_was_first(world, path):
    path = path[:-1] + "cas"
    set_state(world, path, '{"n":1}')

    def act(asked):
        ref, tag = Now(asked), asked.get("stateway-version")
        got, _ = world.beside(path, lambda asked: answer(200, b"", [("Stateway-Set", '{"n":2}')]), "POST")
        assert got.status == 200
        for method, body in (("PUT", '{"n":3}'), ("PATCH", '{"n":3}'), ("DELETE", None)):
            got = ref.now(method, body)
            assert (got.status, got.get("stateway-error")) == (409, "conflict"), got
        got = ref.now("PUT", '{"n":3}', (JSON, ("If-Match", tag)))
        assert (got.status, got.get("stateway-error")) == (412, "stage-match"), got
        return answer(200, b"", [("Stateway-Set", '{"n":4}')])
    assert world.play(path, act).status == 409
    assert world.state(path) == '{"n":2}'


def test_ended_meanwhile(world, path):
    path = path[:-1] + "cas"
    set_state(world, path, '{"n":1}')

    def act(asked):
        ref = Now(asked)
        got, _ = world.beside(path, lambda asked: answer(200, b"", [("Stateway-Delete", "?1")]), "POST")
        assert got.status == 200
        assert ref.now("PUT", '{"n":3}').status == 409
        return answer(200)
    assert world.play(path, act).status == 200
    assert world.state(path) is None


def test_delete_and_again(world, path):
    set_state(world, path, '{"n":1}')

    def act(asked):
        ref = Now(asked)
        got = ref.now("DELETE")
        assert (got.status, got.get("etag")) == (204, None)
        assert ref.get().status == 404
        _, other = world.beside(path, lambda asked: answer(200))
        assert other.get("stateway-state-info") == "absent"
        assert ref.now("DELETE").status == 204
        assert ref.now("PATCH", '{"m":1}').status == 204
        return answer(200, b"", [("Stateway-Patch", '{"e":1}')])
    assert world.play(path, act).status == 200
    assert json.loads(world.state(path)) == {"m": 1, "e": 1}


def test_visitors(world):
    """A new one has no id to write under; a known one's state stays sealed; one that was ended is renewed."""
    where = f"/v/{uuid.uuid4().hex}"

    def new(asked):
        got = Now(asked).now("PUT", '{"n":1}')
        assert (got.status, got.get("stateway-error")) == (409, "stage-new")
        return answer(200, b"", [("Stateway-Set", '{"n":1}')])
    got = world.play(where, new)
    cookies = got.cookies()
    assert got.status == 200 and len(cookies) == 1

    def known(asked):
        ref = Now(asked)
        for n in range(2, 60):
            assert ref.now("PATCH", json.dumps({"n": n})).status == 204
        return answer(200, b"", [("Stateway-Patch", '{"e":1}')])
    got = world.play(where, known, cookies=cookies)
    assert (got.status, got.cookies()) == (200, {})
    assert json.loads(world.state(where, cookies=cookies)) == {"n": 59, "e": 1}

    def ended(asked):
        assert Now(asked).now("DELETE").status == 204
        return answer(200)
    got = world.play(where, ended, cookies=cookies)
    assert (got.status, list(got.cookies().values())) == (200, [""])
    assert world.state(where, cookies=cookies) is None

    set_again = world.play(where, lambda asked: answer(200, b"", [("Stateway-Set", '{"n":1}')]))
    cookies = set_again.cookies()

    def other(asked):
        assert Now(asked).now("DELETE").status == 204
        return answer(200, b"", [("Stateway-Set", '{"fresh":1}')])
    got = world.play(where, other, cookies=dict(cookies))  # it is a jar: what comes back goes in
    assert got.status == 200 and len(got.all("set-cookie")) == 1
    assert list(got.cookies().values()) not in ([""], list(cookies.values()))
    assert world.state(where, cookies=got.cookies()) == '{"fresh":1}'
    assert world.state(where, cookies=cookies) is None


def test_alarms_stay(world, path):
    """A write at once sets and takes none; the delivery's answer still takes its own out."""
    due = threading.Event()
    rang = []

    def act(asked):
        assert Now(asked).now("PATCH", '{"now":1}').status == 204
        return answer(200)
    assert world.play(path, lambda asked: answer(200, b"", [("Stateway-Set", '{"a":1}'),
                                                            ("Stateway-Alarm", "in=700;id=t")])).status == 200
    assert world.play(path, act).status == 200

    def delivered(asked, raw):
        if asked.target != "/alarms":
            return answer(200)
        rang.append((asked.get("stateway-alarm"), asked.get("stateway-state")))
        assert Now(asked).now("PATCH", '{"rang":true}').status == 204
        due.set()
        return answer(200, b"", [("Stateway-Patch", '{"end":1}')])
    world.origin.act = delivered
    assert due.wait(10)
    harness.wait_for(lambda: json.loads(world.state(path) or "{}").get("end"))
    assert rang == [("id=t;attempt=1", '{"a":1,"now":1}')]
    assert json.loads(world.state(path)) == {"a": 1, "now": 1, "rang": True, "end": 1}


def test_answer_that_does_not_wait(world, path):
    """The app sends writes and its answer at once: in order or not, the answer's commit meets no conflict by its own."""
    set_state(world, path, '{"n":0}')
    for n in range(1, 30):
        def act(asked):
            ref = Now(asked)
            raw = harness.Raw(("127.0.0.1", ref.port))
            raw.send(harness.request_bytes("PUT", ref.path + NOW, [JSON], json.dumps({"n": n}).encode()))
            threads.append(threading.Thread(target=lambda: (raw.read(), raw.close())))
            threads[-1].start()
            return answer(200, b"", [("Stateway-Patch", '{"e":%d}' % n)])
        threads = []
        assert world.play(path, act).status == 200
        for t in threads:
            t.join()
        assert json.loads(world.state(path))["e"] == n


def test_client_or_app_leaves(world, path):
    """Whoever goes while a write is on its way: it is made or refused, as the app was told, and nothing is harmed."""
    set_state(world, path, '{"n":0}')
    kept = 0
    for n in range(1, 31):
        over, told = threading.Event(), []

        def act(asked, raw):
            if asked.target != path or asked.method == "GET":
                return answer(200)
            ref = Now(asked)
            with harness.Raw(("127.0.0.1", ref.port)) as side:
                side.send(harness.request_bytes("PUT", ref.path + NOW, [JSON], json.dumps({"n": n}).encode()))
                (raw, client, side)[n % 3].reset()  # the app's connection for its answer, the client's, the call's
                if n % 3 != 2:
                    told.append(side.read().status)
            over.set()
            return answer(200) if n % 3 != 0 else None
        world.origin.act = act
        client = world.gateway.connect()
        client.send(harness.request_bytes("POST", path, [], b""))
        if n % 3 != 1:
            assert client.read().status == (502 if n % 3 == 0 else 200)
            client.close()
        assert over.wait(10)
        now = json.loads(world.state(path))["n"]
        if n % 3 == 2:  # nobody was told
            assert now in (kept, n)
            kept = now
        elif told == [204]:
            assert now == n
            kept = n
        else:
            assert (told, now) == ([410], kept)


def test_durable_when_it_is_answered(gateway):
    """kill -9 behind the 204: the state is there; before it: the old or the new one."""
    with App() as origin:
        g = gateway({"apps": {"a": {"servers": [origin.address]}}, "routes": routes()})
        world, where = World(g, origin), f"/{uuid.uuid4().hex}/x"
        for n in range(1, 6):
            def act(asked, raw):
                if asked.target != where or asked.method == "GET":
                    return answer(200)
                got = Now(asked).now("PUT", json.dumps({"n": n, "fill": "y" * 3000 * n}))
                done.append(got.status)
                g.kill_gateway()
                return None
            done = []
            origin.act = act
            try:
                g.post(where)
            except (OSError, EOFError):
                pass
            assert done == [204]
            g.wait_ready()
            assert json.loads(world.state(where))["n"] == n
