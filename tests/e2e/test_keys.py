"""The key ring's life: seed, active, retired, gone; without a restart, and without anybody being logged out."""
import base64
import concurrent.futures
import json
import os
import random
import re
import threading
import time

import pytest

import harness
from harness import Gateway, Origin, answer, sanitized, stateway, wait_for

SECONDS = float(os.environ.get("STATEWAY_KEYS_SECONDS", "12"))  # 60 and more: a longer run
ABSOLUTE_S = {"sticky": 86400, "sealed": 7 * 86400}
MARGIN_S = 300


def respond(name):
    """An app that counts in the state it is given, and says who it is and what it got."""
    def fn(asked, _raw):
        given = asked.get("stateway-state")
        state = json.loads(given) if given else {}
        told = {"server": name, "state": state, "visitor": asked.get("stateway-visitor"),
                "cookie": asked.get("cookie")}
        lines = []
        if asked.method == "POST":
            state = {"n": state.get("n", 0) + 1}
            lines.append(("Stateway-Set", json.dumps(state)))
        return answer(200, json.dumps(told), lines)
    return fn


ROUTES = [
    {"path": "/sticky/*", "app": "two", "state": "sticky", "expose": ["verdict"],
     "sticky": {"cookie": {"name": "pin"}}},
    {"path": "/sealed/*", "app": "two", "state": "sealed", "expose": ["verdict"],
     "sealed": {"cookie": {"name": "box"}, "absolute": "7d"}},
    {"path": "/token/*", "app": "two", "state": "token", "expose": ["verdict"],
     "token": {"from": "cookie.login", "issuer": "https://shop.example", "audience": ["shop"], "mint": {}}},
]
COOKIES = {"sticky": "pin", "sealed": "box", "token": "login"}


@pytest.fixture(scope="module")
def apps():
    origins = [Origin(respond("a")), Origin(respond("b"))]
    yield origins
    for origin in origins:
        origin.close()


def config(apps, routes=None, **more):
    return {"apps": {"two": {"servers": [o.address for o in apps], "limits": {"connections": 500}}},
            "routes": ROUTES if routes is None else routes, "workers": 4, **more}


def keys(g, *words, code=0, env=None):
    """`stateway keys ...` with the gateway's configuration: a CompletedProcess."""
    done = stateway("keys", *words, "-c", g.file, env=env)
    assert done.returncode == code, (done.args, done.returncode, done.stdout, done.stderr)
    assert not harness.REPORTS.search(done.stderr), done.stderr
    return done


def ring(g):
    """{id: key} as the file has it."""
    return {k["id"]: k for k in json.loads((g.folder / "keys.json").read_text())["keys"]}


def edit(g, change):
    """By hand, as an editor that writes a new file."""
    path = g.folder / "keys.json"
    whole = json.loads(path.read_text())
    change(whole)
    aside = g.folder / "by-hand"
    aside.write_text(json.dumps(whole))
    aside.chmod(0o600)
    os.rename(aside, path)


def known(g):
    """{id: key} as the gateway has it, with what it counted."""
    return {k["id"]: k for k in g.admin("GET", "/v1/keys").json()["keys"]}


def active(keys_by_id):
    return next(i for i, k in keys_by_id.items() if k["state"] == "active")


def follow(g):
    """Until the gateway has what the file has."""
    want = {i: k["state"] for i, k in ring(g).items()}
    wait_for(lambda: {i: k["state"] for i, k in known(g).items()} == want, 10, "the gateway follows the file")


def pin_key(pin):
    return int.from_bytes(base64.urlsafe_b64decode(pin)[1:5], "big")


def box_key(box):
    head = box.split(".")[0]
    return int(json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"])


class Visitor:
    """Keeps the cookies of the three routes, and knows what each should say."""

    def __init__(self, g, connections=1):
        self.g, self.raws = g, [g.connect() for _ in range(connections)]
        self.cookies, self.n, self.server = {}, {"sealed": 0, "token": 0}, None

    def close(self):
        for raw in self.raws:
            raw.close()

    def ask(self, kind, cookie=None, method="POST"):
        pairs = [("Cookie", f"{COOKIES[kind]}={cookie}")] if cookie else []
        got = random.choice(self.raws).request(method, f"/{kind}/x", pairs, b"" if method == "POST" else None)
        assert got.status == 200, (kind, got)
        return got

    def go(self, kind):
        """One request with the newest cookie: the state must be the one that was left."""
        cookie = self.cookies.get(COOKIES[kind])
        got = self.ask(kind, cookie)
        told = got.json()
        if kind == "sticky":
            assert self.server in (None, told["server"]), (got, "another server")
            assert got.get("stateway-verdict") == ("kept" if cookie else "fresh"), got
            self.server = told["server"]
        else:
            assert told["state"].get("n", 0) == self.n[kind], (kind, got, self.n)
            self.n[kind] += 1
        self.cookies.update(got.cookies())
        assert self.cookies.get(COOKIES[kind]), got
        return got

    def all(self):
        for kind in COOKIES:
            self.go(kind)


# ---- one gateway, step by step ----


def test_a_life(apps):
    with Gateway(config(apps)) as g:
        old, v = Visitor(g), Visitor(g)
        old.all()
        v.all()
        assert pin_key(v.cookies["pin"]) == box_key(v.cookies["box"]) == 1
        early = old.cookies["pin"]
        sets = g.get("/.well-known/jwks.json").json()["keys"]
        assert len(sets) == 1
        # a seed is known and makes nothing
        assert "key 2: added" in keys(g, "add").stdout
        follow(g)
        v.all()
        assert box_key(v.cookies["box"]) == 1
        assert len(g.get("/.well-known/jwks.json").json()["keys"]) == 2, "others learn it before it signs"
        # promoted: it makes, and what is there still counts
        said = keys(g, "promote", 2).stdout
        assert "key 2: active" in said and re.search(r"key 1: retired: nothing made with it can be alive after 20", said)
        follow(g)
        v.all()
        assert pin_key(v.cookies["pin"]) == box_key(v.cookies["box"]) == 2, "made anew with what is used"
        new = Visitor(g)
        new.all()
        assert pin_key(new.cookies["pin"]) == box_key(new.cookies["box"]) == 2
        # key 1 is still needed: refused, until it is forced
        file = (g.folder / "keys.json").read_text()
        assert "can be alive until" in keys(g, "retire", 1, code=1).stderr
        assert "active one" in keys(g, "retire", 2, "--force", code=1).stderr
        assert "no key 9" in keys(g, "retire", 9, code=1).stderr
        assert (g.folder / "keys.json").read_text() == file
        follow(g)
        old.all()
        retired = ring(g)[1]["retired"]
        listed = {k["id"]: k for k in json.loads(keys(g, "list", "--json").stdout)["keys"]}
        assert listed[1]["dead"] == retired + max(ABSOLUTE_S.values()) + MARGIN_S == known(g)[1]["dead"]
        left = Visitor(g)
        keys(g, "retire", 1, "--force")
        follow(g)
        assert set(known(g)) == {2}
        got = left.ask("sticky", early)
        assert got.get("stateway-verdict") == "fresh", "made with a key that is gone"
        new.all()
        old.all()
        assert g.gateway_pid() and "stopping" not in g.log(), "all of that without a restart"
        for visitor in (old, v, new, left):
            visitor.close()


def test_counts(apps):
    with Gateway(config(apps)) as g:
        v = Visitor(g)
        began = int(time.time())
        for _ in range(5):
            v.go("sealed")
        v.go("sticky")
        v.go("sticky")
        v.go("token")
        v.go("token")
        got = known(g)[1]
        assert got["made"] == 5 + 1 + 2 and got["opened"] == 4 + 1 + 1, got
        assert began <= got["last_used"] <= time.time() + 1
        v.ask("sealed", "x.y.z")
        v.ask("sticky", "x" * 76)
        forged = v.cookies["pin"][:-1] + ("A" if v.cookies["pin"][-1] != "A" else "Q")
        v.ask("sticky", forged)
        assert known(g)[1]["opened"] == got["opened"], "what is forged is no use of a key"
        keys(g, "rotate")
        follow(g)
        made = known(g)[1]["made"]
        for _ in range(3):
            v.go("sealed")
        assert known(g)[1]["made"] == made and known(g)[1]["opened"] == got["opened"] + 1
        assert known(g)[2]["made"] == 3 and known(g)[2]["opened"] == 2
        metrics = g.admin("GET", "/metrics").body.decode()
        assert 'stateway_key_uses_total{key="2",use="make"} 3\n' in metrics
        assert 'stateway_keys{state="retired"} 1\n' in metrics and "stateway_keys_stale 0\n" in metrics
        text = keys(g, "list").stdout
        assert re.search(r"^2 +active .* 3 +2 20\d\d-", text, re.M), text
        assert "secret" not in g.admin("GET", "/v1/keys").body.decode()
        secrets = [k["secret"] for k in ring(g).values()]
        assert not any(s in metrics + text + g.log() for s in secrets)
        v.close()


# ---- files that are not as they should be ----


@pytest.mark.parametrize("how", ["broken", "missing", "readable", "empty", "folder"])
def test_a_file_that_cannot_be_read(apps, how):
    with Gateway(config(apps)) as g:
        v, path = Visitor(g), g.folder / "keys.json"
        v.all()
        good = path.read_bytes()
        if how == "broken":
            path.write_text('{"version":1,"keys":[')
        elif how == "readable":
            path.chmod(0o644)
        elif how == "empty":
            path.write_text("")
        else:
            path.unlink()
        if how == "folder":
            path.mkdir(mode=0o700)
        g.wait_log("the keys that were read before stay in use")
        assert "stateway_keys_stale 1\n" in g.admin("GET", "/metrics").body.decode()
        time.sleep(2.5)
        assert g.log().count("the keys that were read before stay in use") == 1, "told once"
        v.all()
        if how == "folder":
            path.rmdir()
        path.write_bytes(good)
        path.chmod(0o600)
        g.wait_log("the file can be read again")
        v.all()
        keys(g, "rotate")
        follow(g)
        v.all()
        v.close()


def test_another_file(apps):
    """Somebody put a ring in its place that has nothing to do with the old one."""
    with Gateway(config(apps)) as g:
        v = Visitor(g)
        v.all()
        edit(g, lambda whole: whole["keys"][0].update(secret=base64.urlsafe_b64encode(os.urandom(32)).decode().strip("=")))
        g.wait_log("key 1, which was active, is not in the file any more")
        got = v.ask("sealed", v.cookies["box"])
        assert got.json()["state"] == {}, "the new key 1 did not make this"
        again = Visitor(g)
        again.all()
        again.all()
        v.close()
        again.close()


def test_the_commands_alone(tmp_path):
    def run(*words, code=0, env=None):
        done = stateway("keys", *words, env=env, cwd=tmp_path)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    assert "No such file" in run("list", code=1)
    assert "No such file" in run("add", code=1)
    (tmp_path / "state").mkdir()
    path = tmp_path / "state" / "keys.json"
    secret = base64.urlsafe_b64encode(bytes(32)).decode().strip("=")
    path.write_text(json.dumps({"version": 1, "keys": [
        {"id": 7, "state": "active", "created": 1760000000, "secret": secret}]}))
    path.chmod(0o600)
    assert "key 8: added" in run("rotate", "--seed")
    assert json.loads(path.read_text())["version"] == 1, "an older stateway reads it"
    assert "key 8: active" in run("promote", "8")
    assert json.loads(path.read_text())["version"] == 2
    assert "-c FILE" in run("retire", "7", code=1), "how long things live is in the configuration"
    assert "key 7: active" in run("promote", "7"), "taken back"
    assert "is the active one already" in run("promote", "7", code=1)
    for n in range(9, 23):
        assert f"key {n}: added" in run("add")
    before = path.read_bytes()
    assert "there are 16 keys" in run("add", code=1)
    assert "there are 16 keys" in run("rotate", code=1)
    assert path.read_bytes() == before
    assert "key 9: removed" in run("retire", "9"), "a seed made nothing"
    for wrong in ([], ["lst"], ["promote"], ["promote", "x"], ["promote", "0"], ["retire", "1", "2"], ["list", "x"]):
        run(*wrong, code=2)
    assert "did you mean retire" in run("retir", "1", code=2)
    # read-only: systemd's credentials, the environment
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path / "state")}
    assert "cannot be changed here" in run("add", "--file", path, code=1, env=env)
    env = {"STATEWAY_KEYS": path.read_text()}
    assert "changed where it is set" in run("add", code=1, env=env)
    path.write_text("{}")
    assert re.search(r"^7 +active", run("list", env=env), re.M)
    assert sorted(os.listdir(path.parent)) == ["keys.json", "keys.json.lock"], "nothing is left aside"


def test_keys_of_the_environment(apps, tmp_path):
    text = json.dumps({"version": 2, "keys": [
        {"id": 3, "state": "active", "created": 1760000000, "secret": base64.urlsafe_b64encode(os.urandom(32)).decode()[:43]}]})
    secret = json.loads(text)["keys"][0]["secret"]
    # the last character of 32 bytes has two loose bits
    text = text.replace(secret, secret[:42] + "A")
    made = config(apps)
    made["apps"]["own"] = {"command": harness.app_command(), "replicas": 1}
    made["routes"] = [*ROUTES, {"path": "/environment/*", "app": "own", "state": "none"}]
    with Gateway(made, env={"STATEWAY_KEYS": text}) as g:
        v = Visitor(g)
        v.all()
        assert box_key(v.cookies["box"]) == 3
        assert not (g.folder / "keys.json").exists()
        assert g.get("/environment/STATEWAY_KEYS").body == b"-", "apps do not get the secrets"
        g.kill_gateway()
        v.close()
        v.raws = [g.connect()]
        v.all()
        v.close()


# ---- rotation by age ----


def test_rotation_by_age(apps, tmp_path):
    """Two gateways with one file: one of them does each step, and visitors of both stay."""
    now = int(time.time())
    shared = tmp_path / "keys.json"
    made = config(apps, keys={"file": str(shared), "rotate": "30d"})
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with Gateway(dict(made), folder=one) as g, Gateway(dict(made), folder=two) as h:
        v, w = Visitor(g), Visitor(h)
        v.all()
        w.all()

        def both(which):
            wait_for(lambda: {i: k["state"] for i, k in known(g).items()} == which ==
                     {i: k["state"] for i, k in known(h).items()}, 15, f"{which}: {known(g)} {known(h)}")

        def rewrite(change):
            whole = json.loads(shared.read_text())
            change(whole["keys"])
            (tmp_path / "aside").write_text(json.dumps(whole))
            (tmp_path / "aside").chmod(0o600)
            os.rename(tmp_path / "aside", shared)

        time.sleep(2.5)
        both({1: "active"})
        rewrite(lambda k: k[0].update(created=now - 31 * 86400))
        both({1: "active", 2: "seed"})
        time.sleep(2.5)
        both({1: "active", 2: "seed"})  # a young seed is not promoted: somebody may not know it yet
        rewrite(lambda k: k[1].update(created=now - 121))
        both({1: "retired", 2: "active"})
        v.all()
        w.all()
        v.g, w.g = h, g  # and at the other one
        v.close()
        w.close()
        v.raws, w.raws = [h.connect()], [g.connect()]
        v.all()
        w.all()
        time.sleep(2.5)
        both({1: "retired", 2: "active"})
        rewrite(lambda k: k[0].update(retired=now - 8 * 86400))
        both({2: "active"})
        log = g.log() + h.log()
        assert log.count("key 2 was added") == log.count("key 2 is active now") == log.count("key 1 was removed") == 1
        v.all()
        w.all()
        v.close()
        w.close()


# ---- under load ----


def test_nobody_notices(apps):
    """Cookies and tokens at full speed on all workers, through three rotations: each state is the one that was left."""
    with Gateway(config(apps)) as g:
        failed, count, stop = [], [0], threading.Event()

        def run():
            v = Visitor(g, connections=6)
            first = {}
            try:
                v.all()
                first, n = dict(v.cookies), dict(v.n)
                while not stop.is_set():
                    v.go(random.choice(list(COOKIES)))
                    count[0] += 1
                    if random.random() < 0.05:  # what was made with the very first key, all the time
                        for kind in ("sealed", "token"):
                            told = v.ask(kind, first[COOKIES[kind]], "GET").json()
                            assert told["state"].get("n") == n[kind], (kind, told)
                        got = v.ask("sticky", first["pin"], "GET")
                        assert got.get("stateway-verdict") == "kept", got
                    if random.random() < 0.02:  # newcomers get something of the newest key at once
                        fresh = Visitor(g, connections=3)
                        for _ in range(3):
                            fresh.all()
                        fresh.close()
            except BaseException as e:  # told in the main thread
                failed.append(e)
            finally:
                v.close()

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            for _ in range(6):
                pool.submit(run)
            turns, start = max(3, int(SECONDS / 4)), time.monotonic()
            for turn in range(turns):
                time.sleep(max(0, start + (turn + 0.5) * SECONDS / turns - time.monotonic()))
                if failed:
                    break
                if turn % 3 == 1:
                    keys(g, "rotate", "--seed")
                    follow(g)
                    keys(g, "promote", max(ring(g)))
                else:
                    keys(g, "rotate")
                follow(g)
                if len(ring(g)) > 12:  # a long run: the ring has an end; the first one is needed
                    keys(g, "retire", sorted(ring(g))[1], "--force")
            time.sleep(max(0, start + SECONDS - time.monotonic()))
            stop.set()
        assert not failed, failed[0]
        assert count[0] > (200 if sanitized() else 1000), count
        got = known(g)
        assert active(got) == turns + 1
        assert all(k["made"] > 0 and k["opened"] > 0 for k in got.values()), got
        assert "stateway_errors_total{reason=\"sealed\"} 0\n" in g.admin("GET", "/metrics").body.decode()
        assert g.log().count("keys: the file has changed") >= turns
