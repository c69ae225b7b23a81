"""concurrency: merge with many writers of one key: each patch is committed, nobody is told of a conflict."""
import json
import threading
import uuid

import pytest

from harness import Origin, Raw, answer, request_bytes

WRITERS = 40


def app():
    """Answers with the patch that the request's body is; reads get none."""
    def respond(asked, raw):
        headers = [("Stateway-Patch", asked.body.decode())] if asked.body else []
        return answer(200, (asked.get("stateway-state") or "").encode(), headers)
    return Origin(respond)


def config(origin, workers, **more):
    return {"apps": {"a": {"servers": [origin.address], "limits": {"connections": 300, "pending": 300}}},
            "workers": workers,
            "routes": [{"path": "/{room}/x", "app": "a", "state": "session",
                        "session": {"key": "path.room", "concurrency": "merge", "inline": "16KiB", **more}}]}


def write(address, path, who, count, wrong):
    with Raw(address, timeout=60) as raw:
        for n in range(count):
            got = raw.request("POST", path, [], json.dumps({f"w{who}": {f"p{n}": 1}}).encode())
            if got.status != 200:
                wrong.append((who, n, got.status, got.get("stateway-error")))


@pytest.mark.parametrize("workers, patches", [(1, 40), (2, 200)])
def test_many_writers_of_one_key(gateway, workers, patches):
    with app() as origin:
        g = gateway(config(origin, workers, **{"max-size": "4MiB"}))
        path, wrong = f"/{uuid.uuid4().hex}/x", []
        threads = [threading.Thread(target=write, args=(g.address, path, who, patches, wrong))
                   for who in range(WRITERS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert wrong == []
        seen = whole(g, origin, path)
        assert seen == {f"w{who}": {f"p{n}": 1 for n in range(patches)} for who in range(WRITERS)}


def whole(g, origin, path):
    """The state, as an app fetches it."""
    told = {}
    before = origin.respond

    def look(asked, raw):
        ref = asked.get("stateway-ref")
        host, _, rest = ref.removeprefix("http://").partition("/")
        name, _, port = host.partition(":")
        with Raw((name, int(port))) as side:
            told["state"] = json.loads(side.request("GET", "/" + rest).body)
        return answer(200)
    origin.respond = look
    try:
        assert g.get(path).status == 200
    finally:
        origin.respond = before
    return told["state"]


def test_ends_and_whole_states_between_patches(gateway):
    """Deletes and sets by others do not stand in the line: a patch is committed, or told that the state ended."""
    with app() as origin:
        origin.respond = lambda asked, raw: answer(200, b"", [
            ("Stateway-Delete", "?1") if asked.body == b"end" else
            ("Stateway-Set", asked.body.decode()) if b"set" in asked.body else
            ("Stateway-Patch", asked.body.decode())] if asked.body else [])
        g = gateway(config(origin, 2))
        path, seen = f"/{uuid.uuid4().hex}/x", []

        def run(who):
            with Raw(g.address, timeout=60) as raw:
                for n in range(60):
                    body = b"end" if who == 0 else b'{"set":%d}' % n if who == 1 else b'{"w%d":%d}' % (who, n)
                    got = raw.request("POST", path, [], body)
                    seen.append((who, got.status, got.get("stateway-error")))
        threads = [threading.Thread(target=run, args=(who,)) for who in range(10)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert {s for s in seen if s[0] >= 2 and s[1] != 200} <= {(w, 409, "state-gone") for w in range(2, 10)}
        assert {s[1] for s in seen if s[0] == 0} == {200}
        assert {s[1] for s in seen} <= {200, 409}


def test_clients_that_leave_the_line(gateway):
    """Their patches are made, and the line goes on."""
    with app() as origin:
        g = gateway(config(origin, 2))
        path = f"/{uuid.uuid4().hex}/x"

        def run(who):
            for n in range(20):
                with Raw(g.address, timeout=60) as raw:
                    raw.send(request_bytes("POST", path, [], b'{"w%d_%d":1}' % (who, n)))
                    if who % 2:
                        raw.reset()
                    else:
                        assert raw.read().status == 200
        threads = [threading.Thread(target=run, args=(who,)) for who in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        seen = whole(g, origin, path)
        for who in range(0, 12, 2):
            for n in range(20):
                assert seen[f"w{who}_{n}"] == 1
