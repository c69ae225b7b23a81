"""encrypt: on: without the visitor's cookie the store's files reveal nothing, and with it all is as before."""
import json
import time

import pytest

from harness import Origin, answer
from test_large_states import Ref, of_size

MARK, WHO = "sturgeon-7731-caviar", "ada.lovelace@example.net"


def respond(asked, raw):
    """X-Say: headers of the answer, as JSON pairs; X-Large: puts a state of that many bytes by the side API."""
    if asked.get("x-large"):
        text = of_size(int(asked.get("x-large")))
        text = text.replace("y" * len(MARK), MARK, 1)
        assert Ref(asked).put(text).status == 204
    told = {k.lower(): v for k, v in asked.headers if k.lower().startswith("stateway")}
    if told.get("stateway-state-info", "").startswith("ref"):
        got = Ref(asked).get()
        told["fetched"] = got.body.decode() if got.status == 200 else f"{got.status}"
    return answer(200, json.dumps(told), [tuple(pair) for pair in json.loads(asked.get("x-say", "[]"))])


@pytest.fixture(scope="module")
def app():
    origin = Origin(respond)
    yield origin
    origin.close()


def config(app, encrypt, **more):
    session = {"encrypt": encrypt} if encrypt else {}
    return {"apps": {"a": {"servers": [app.address]}},
            "routes": [{"path": "/*", "app": "a", "state": "session", "expose": ["verdict"],
                        **({"session": session} if session else {})}], **more}


class Visitor:
    def __init__(self, gateway, cookies=None):
        self.gateway, self.cookies = gateway, dict(cookies or {})

    def say(self, *headers, method="POST", send=()):
        got = self.gateway.request(method, "/", [("X-Say", json.dumps(headers)), *send],
                                   b"" if method == "POST" else None,
                                   cookies=self.cookies)
        assert got.status == 200, got
        return got

    def set(self, state, *headers):
        return self.say(("Stateway-Set", json.dumps(state)), *headers)

    def state(self):
        told = self.say(method="GET").json()
        text = told.get("fetched", told.get("stateway-state"))
        return None if text is None else json.loads(text)


def holds(folder, *texts):
    """Which of the texts stand in any file below the folder, also in other spellings."""
    found = set()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_socket():
            data = path.read_bytes()
            for text in texts:
                for spelling in (text.encode(), text.encode().hex().encode(), text.encode("utf-16-le"),
                                 text[::-1].encode()):
                    if spelling in data:
                        found.add((path.name, text))
    return found


def filled(gateway):
    """Visitors with all that may leave traces: set, patched, renewed, deleted, large, with subjects."""
    visitors = [Visitor(gateway) for _ in range(8)]
    for n, one in enumerate(visitors):
        one.set({"word": MARK, "n": n})
        one.say(("Stateway-Patch", json.dumps({"more": MARK + "!"})))
    visitors[0].say(("Stateway-Subject", WHO), ("Stateway-Patch", '{"in":true}'))
    visitors[1].say(("Stateway-Renew", "?1"))
    visitors[2].say(("Stateway-Delete", "?1"))
    visitors[3].say(send=[("X-Large", "200000")])
    visitors[4].say(("Stateway-Subject", WHO))
    visitors[4].say(("Stateway-Delete", "?1"))
    return visitors


def check(visitors):
    for n, one in enumerate(visitors):
        if n in (2, 4):
            assert one.state() is None
        elif n == 3:
            state = one.state()
            assert len(state["x"]) == 200000 - 8 and MARK in state["x"]
        else:
            want = {"word": MARK, "n": n, "more": MARK + "!", **({"in": True} if n == 0 else {})}
            assert one.state() == want


def test_the_method_finds_plain_text(gateway, app, tmp_path):
    """Without encryption all of it stands in the file; else the next test proves nothing."""
    g = gateway(config(app, None, store=f"lmdb:{tmp_path}/state", keys={"file": f"{tmp_path}/keys.json"}))
    filled(g)
    g.stop()
    g.check()
    assert {text for _, text in holds(tmp_path, MARK, WHO)} == {MARK, WHO}


@pytest.mark.parametrize("end", ["running", "stopped", "killed"])
def test_nothing_in_the_files(gateway, app, tmp_path, end):
    settings = config(app, "on", store=f"lmdb:{tmp_path}/state", keys={"file": f"{tmp_path}/keys.json"})
    g = gateway(settings)
    visitors = filled(g)
    check(visitors)
    if end == "stopped":
        g.stop()
        g.check()
    elif end == "killed":
        g.kill_gateway()
    assert holds(tmp_path, MARK, WHO) == set()
    ids = [one.cookies["sid"] for one in visitors if one.cookies.get("sid")]
    assert len(ids) == 6
    assert holds(tmp_path, *ids) == set()
    assert holds(g.folder, MARK, WHO, *ids) == set()  # nor in a log
    if end == "stopped":
        g = gateway(settings)
        for one in visitors:
            one.gateway = g
    check(visitors)
    for one in visitors:
        one.set({"again": MARK})
        assert one.state() == {"again": MARK}
    assert holds(tmp_path, MARK, WHO) == set()


def test_as_without(gateway, app):
    """Cookie, verdicts, versions, the subject's effect: as for anybody."""
    g = gateway(config(app, "on"))
    one = Visitor(g)
    got = one.set({"n": 1})
    assert len(got.all("set-cookie")) == 1
    assert got.get("stateway-verdict") == "updated"
    told = one.say(method="GET").json()
    assert told["stateway-state"] == '{"n":1}'
    assert told["stateway-state-info"] == "inline;type=json;size=7"
    first = dict(one.cookies)
    one.say(("Stateway-Subject", WHO))
    assert one.cookies != first
    assert Visitor(g, first).state() == {"n": 1}  # for ten seconds, for parallel requests
    assert one.state() == {"n": 1}
    again = dict(one.cookies)
    one.say(("Stateway-Delete", "?1"))
    gone = Visitor(g, again).say(method="GET").json()
    assert "stateway-state" not in gone and gone["stateway-verdict"] == "revoked"


@pytest.mark.parametrize("size", [8, 9, 4096, 4097, 65536, 1 << 20])
def test_sizes(gateway, app, size):
    """The limits are of the state, not of what encryption makes of it."""
    g = gateway(config(app, "on", limits={"head": "64KiB"}))
    one = Visitor(g)
    one.set({"n": 1})
    assert one.say(send=[("X-Large",
                          str(size))]).status == 200 if size >= 8 + len(MARK) else one.set({"x": "y" * (size - 8)})
    told = one.say(method="GET").json()
    kind = "inline" if size <= 4096 else "ref"
    assert told["stateway-state-info"] == f"{kind};type=json;size={size}"
    assert len(json.dumps(one.state(), separators=(",", ":"))) == size


def test_renewals_in_a_row(gateway, app):
    """Each renewal gives a new id and so a new key; the state comes along, the old one opens nothing for ever."""
    g = gateway(config(app, "on"))
    one = Visitor(g)
    one.set({"n": 0})
    seen = []
    for n in range(1, 8):
        seen.append(dict(one.cookies))
        one.say(("Stateway-Renew", "?1"), ("Stateway-Patch", json.dumps({"n": n})))
        assert one.state() == {"n": n}
    assert Visitor(g, seen[-1]).state() == {"n": 7}
    time.sleep(10.5)
    for old in seen:
        assert Visitor(g, old).state() is None
    assert one.state() == {"n": 7}


def test_switched_on_and_off(gateway, app, tmp_path):
    """States made before stay readable, and become what the route says with their next write."""
    place = {"store": f"lmdb:{tmp_path}/state", "keys": {"file": f"{tmp_path}/keys.json"}}

    def start(encrypt):
        g = gateway(config(app, encrypt, **place))
        for one in visitors:
            one.gateway = g
        return g
    visitors = [Visitor(None) for _ in range(4)]
    g = start(None)
    for n, one in enumerate(visitors):
        one.set({"n": n, "word": MARK}, ("Stateway-Subject", WHO))
    g.stop()
    g = start("on")
    for n, one in enumerate(visitors):
        assert one.state() == {"n": n, "word": MARK}
    visitors[0].set({"n": 0, "secret": MARK[::-1]})
    visitors[1].say(("Stateway-Patch", '{"m":1}'))
    late = Visitor(g)
    late.set({"late": MARK.upper()})
    visitors.append(late)
    g.stop()
    assert not {text for _, text in holds(tmp_path, MARK.upper())}
    g = start(None)
    assert visitors[0].state() == {"n": 0, "secret": MARK[::-1]}
    assert visitors[1].state() == {"n": 1, "word": MARK, "m": 1}
    assert visitors[2].state() == {"n": 2, "word": MARK}
    assert visitors[4].state() == {"late": MARK.upper()}
    visitors[4].say(("Stateway-Patch", json.dumps({"again": MARK.upper()})))
    g.stop()
    assert {text for _, text in holds(tmp_path, MARK.upper())} == {MARK.upper()}
    g = start("on")
    assert visitors[4].state() == {"late": MARK.upper(), "again": MARK.upper()}
    for n in (2, 3):
        assert visitors[n].state() == {"n": n, "word": MARK}


def test_equal_states_look_different(gateway, app, tmp_path):
    """Of two visitors, and of two writes of one: no pattern tells that they hold the same."""
    g = gateway(config(app, "on", store=f"lmdb:{tmp_path}/state"))
    state = {"x": "z" * 3000}
    visitors = [Visitor(g) for _ in range(6)]
    for one in visitors:
        one.set(state)
        one.set(state)
    g.stop()
    data = b"".join(p.read_bytes() for p in (tmp_path / "state").iterdir() if p.is_file())
    blocks = {}
    for at in range(0, len(data) - 16, 16):
        block = data[at:at + 16]
        if len(set(block)) > 8:  # not zeros, nor other fill
            blocks[block] = blocks.get(block, 0) + 1
    worst = max(blocks.values(), default=0)
    assert worst < 20, worst  # 3000 bytes of one letter would be the same block 187 times


def test_a_damaged_value(gateway, app, tmp_path):
    """Whoever can write the file can destroy a state, but not make another one of it."""
    place = {"store": f"lmdb:{tmp_path}/state", "keys": {"file": f"{tmp_path}/keys.json"}}
    g = gateway(config(app, "on", **place))
    one = Visitor(g)
    one.set({"x": "y" * 1000})
    g.stop()
    g.check()
    file = max((p for p in (tmp_path / "state").iterdir() if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(file.read_bytes())
    noise = [at for at in range(0, len(data) - 64, 64) if len(set(data[at:at + 64])) > 40]
    assert noise
    for at in noise:
        data[at + 32] ^= 1
    file.write_bytes(data)
    g = gateway(config(app, "on", **place))
    got = g.request("GET", "/", cookies=dict(one.cookies))
    assert got.status >= 500 or "stateway-state" not in got.json(), got
