"""stateway revoke: what clients carry is ended before its time; at once, durably, and nobody else's with it."""
import base64
import hashlib
import json
import re
import subprocess
import time

import pytest

import tokens
from harness import BINARY, Gateway, Origin, Raw, stateway
from test_session import Visitor, header, respond

ISSUER, SHOP = "https://id.example", "https://shop.example"


def route(name, state, **more):
    return {"path": f"/{name}/*", "app": "o", "state": state, "expose": ["verdict"], **more}


def routes(folder):
    return [
        route("s", "session"),
        route("m", "token", token={"from": "cookie.login", "issuer": SHOP, "audience": ["shop"], "mint": {}}),
        route("x", "sealed", sealed={"cookie": {"name": "box"}}),
        route("v", "none", token={"keys": f"{folder}/jwks.json", "issuer": ISSUER, "audience": ["shop"]}),
        route("p", "sticky", sticky={"cookie": {"name": "pin"}}),
    ]


class World:
    """An app and a gateway that may be restarted; tokens of an issuer."""

    def __init__(self, folder, **config):
        self.app, self.key, self.folder, self.more = Origin(respond), tokens.Key("ES256"), folder, config
        (folder / "jwks.json").write_text(json.dumps(tokens.jwks(self.key)))
        self.gateway = None
        self.start()

    def start(self):
        self.gateway = Gateway({"apps": {"o": {"servers": [self.app.address]}}, "routes": routes(self.folder),
                                **self.more}, folder=self.folder)

    def restart(self):
        self.gateway.close()
        self.start()

    def close(self):
        if self.gateway.exit_code is None:
            self.gateway.close()
        self.app.close()

    def revoke(self, *args, **more):
        return stateway("revoke", *args, "-c", self.gateway.file, **more)

    def ended(self, *args, **more):
        done = self.revoke(*args, **more)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def admin(self, method, path):
        return self.gateway.admin(method, path)

    def visitor(self, where, name=None, state=None):
        """Somebody with a state there, and logged in when a name is given."""
        made = Visitor(self.gateway, f"/{where}")
        send = [("Stateway-Subject", name)] if name else []
        got = made.set(state or {"of": name}, send=send)
        assert got.status == 200, got
        return made

    def here(self, visitor):
        """The same browser, wherever the gateway listens now."""
        return Visitor(self.gateway, visitor.base, visitor.cookies)

    def verdict(self, visitor):
        got = self.here(visitor).ask("GET")
        assert got.status == 200, got
        return got.verdict

    def bearer(self, token):
        return self.gateway.get("/v/", headers=[("Authorization", f"Bearer {token}")])

    def metric(self, kind):
        text = self.gateway.admin("GET", "/metrics").body.decode()
        return int(re.search(rf'^stateway_ended_total{{kind="{kind}"}} (\d+)$', text, re.M).group(1))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("revoke"))
    yield made
    made.close()


@pytest.fixture
def world(tmp_path):
    running = []

    def start(**config):
        running.append(World(tmp_path, **config))
        return running[-1]

    yield start
    for one in running:
        one.close()


# ---- a subject ----


def test_subject(world):
    """Everything of alice, wherever it is kept, and nothing of bob; through a crash and a restart."""
    w = world()
    alice = [w.visitor(where, "alice") for where in "smx"]
    bob = [w.visitor(where, "bob") for where in "smx"]
    token = w.key.token(tokens.claims(sub="alice", jti="a1"))
    others = w.key.token(tokens.claims(sub="bob", jti="b1"))
    assert w.bearer(token).status == 200
    assert "this subject" in w.ended("--subject", "alice")

    def check():
        assert [w.verdict(v) for v in alice] == ["revoked"] * 3
        assert [w.here(v).state() for v in bob] == [{"of": "bob"}] * 3
        got = w.bearer(token)
        assert (got.status, got.get("stateway-error")) == (401, "token-revoked")
        assert w.bearer(others).status == 200

    check()
    w.gateway.kill_gateway()
    check()
    w.restart()
    check()
    # The login after it is another thing.
    time.sleep(1.1)  # tokens tell their time in seconds: who is in doubt is cut off
    again = [w.visitor(where, "alice", {"again": 1}) for where in "smx"]
    assert [w.here(v).state() for v in again] == [{"again": 1}] * 3
    assert w.bearer(w.key.token(tokens.claims(sub="alice"))).status == 200
    check()


def test_subject_in_json_and_counted(shared):
    before = shared.metric("subject")
    shared.visitor("s", "carol")
    told = json.loads(shared.ended("--subject", "carol", "--json"))
    assert (told["subject"], told["ended"]) == ("carol", 1) and told["not_before_ms"] > 0
    assert shared.metric("subject") == before + 1


def test_subject_cut_off_lasts_as_long_as_a_token(world):
    """The longest of what a subject may have counts: here a sealed state, not the session."""
    w = world()
    box = w.visitor("x", "dora")
    w.ended("--subject", "dora")
    told = json.loads(w.admin("GET", "/v1/subjects/dora").body)
    assert told["not_before_ms"] is not None
    assert w.verdict(box) == "revoked"


# ---- a token ----


def test_token_by_id(world):
    w = world()
    first, second = (w.key.token(tokens.claims(jti=name)) for name in ("t 1/\u20ac", "t2"))
    unnamed = w.key.token(tokens.claims())
    assert "this token" in w.ended("--issuer", ISSUER, "--jti", "t 1/\u20ac")

    def check():
        assert w.bearer(first).get("stateway-error") == "token-revoked"
        assert w.bearer(tokens.malleated(first)).status == 401, "it goes by its id and not by its text"
        assert [w.bearer(t).status for t in (second, unnamed)] == [200, 200]

    check()
    w.gateway.kill_gateway()
    check()
    w.restart()
    check()
    w.ended("--issuer", "https://other.example", "--jti", "t2")
    assert w.bearer(second).status == 200, "an id means something beside its issuer only"


def test_token_from_stdin(shared):
    """Whole; one that is renewed meanwhile is the same."""
    alice = shared.visitor("m", "alice")
    twin = shared.here(alice)
    assert alice.set({"n": 2}).status == 200  # a token of the same id
    assert alice.cookies["login"] != twin.cookies["login"]
    shared.ended("--jti", "-", input=twin.cookies["login"] + "\n")
    assert [shared.verdict(v) for v in (alice, twin)] == ["revoked"] * 2
    said = tokens.claims_of(alice.cookies["login"])
    assert json.loads(shared.admin("GET", f"/v1/tokens?issuer={SHOP}&jti={said['jti']}").body)["token"] == "ended"
    assert json.loads(shared.admin("GET", f"/v1/tokens?issuer={SHOP}&jti=other").body) == \
        {"token": "not ended", "until": None}
    again = json.loads(shared.ended("--jti", "-", "--json", input=f"login={twin.cookies['login']}; x=y"))
    assert again["token"] == "ended" and again["until"] > time.time() + 80000, "twice is no error"


def test_a_logout_is_the_same_note(shared):
    alice = shared.visitor("m", "alice")
    twin = shared.here(alice)
    assert alice.delete().status == 200
    assert "this token" in shared.ended("--jti", "-", input=twin.cookies["login"])
    assert shared.verdict(twin) == "revoked"


# ---- a session ----


def test_session_by_cookie_and_by_handle(shared):
    one, two, three = (shared.visitor("s") for _ in range(3))
    before = shared.metric("session")
    shared.ended("--session", "-", input=f"sid={one.sid}\n")
    key = base64.urlsafe_b64decode(two.sid + "=")
    handle = base64.urlsafe_b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
    assert json.loads(shared.ended(f"--session={handle}", "--json")) == {"session": "ended"}
    assert [shared.verdict(v) for v in (one, two, three)] == ["revoked", "revoked", "kept"]
    assert shared.metric("session") == before + 2
    gone = shared.revoke("--session", "-", input=one.sid)
    assert gone.returncode == 1 and "no live state" in gone.stderr


# ---- a sealed state ----


def test_sealed_by_cookie_and_by_id(world):
    w = world()
    one, two, three = (w.visitor("x") for _ in range(3))
    old = w.here(one)
    assert one.set({"n": 2}).status == 200
    w.ended("--sealed", "-", input=one.cookies["box"])
    w.ended("--sealed", tokens.header_of(two.cookies["box"])["jti"])

    def check():
        assert [w.verdict(v) for v in (one, old, two, three)] == ["revoked", "revoked", "revoked", "kept"]

    check()
    w.gateway.kill_gateway()
    check()
    w.restart()
    check()
    got = w.here(one).set({"n": 3})
    assert (got.status, header(got, "stateway-state")) == (200, None), "its visitor begins anew"


# ---- a pin ----


def test_pin(world):
    w = world()
    one, two = (Visitor(w.gateway, "/p") for _ in range(2))
    for v in (one, two):
        assert v.ask("GET").verdict == "fresh"
    stolen = w.here(one)
    assert w.verdict(one) == "kept"
    w.ended("--pin", "-", input=f"pin={one.cookies['pin']}")
    raw = base64.urlsafe_b64decode(two.cookies["pin"] + "==")

    def check():
        got = w.here(stolen).ask("GET")
        assert got.verdict == "revoked"
        assert header(got, "stateway-verdict") == "revoked", "the app is told"
        assert got.cookies().get("pin") not in (None, stolen.cookies["pin"]), "and the visitor begins anew"
        assert w.verdict(two) == "kept"

    check()
    w.gateway.kill_gateway()
    check()
    w.restart()
    check()
    anew = w.here(one)
    assert anew.ask("GET").verdict == "revoked"
    assert anew.ask("GET").verdict == "kept", "with its new pin"
    told = json.loads(w.ended("--pin", raw[9:17].hex(), "--json"))
    assert told["pin"] == "ended" and abs(told["until"] - time.time() - 86400) < 120
    assert w.verdict(two) == "revoked"
    assert w.metric("pin") == 1, "since the process began"


def test_a_pin_is_looked_up_only_when_it_may_have_been_ended(world):
    w = world()
    one, two = (Visitor(w.gateway, "/p") for _ in range(2))
    assert one.ask("GET").status == two.ask("GET").status == 200

    def loads(visitor):
        def count():
            text = w.gateway.admin("GET", "/metrics").body.decode()
            return int(re.search(r"^stateway_store_loads_total (\d+)$", text, re.M).group(1))
        before = count()
        for _ in range(5):
            assert visitor.ask("GET").verdict == "kept"
        return count() - before

    assert loads(two) == 0
    w.ended("--pin", "-", input=one.cookies["pin"])
    assert loads(two) == 5
    w.ended("--subject", "nobody")
    assert one.ask("GET").verdict == "revoked"


# ---- the end of notes ----


def test_notes_are_collected(tmp_path, world):
    """A note is kept as long as its thing could live, and not longer."""
    w = world()
    w.gateway.close()
    minted = {**routes(tmp_path)[1]["token"], "mint": {"life": "2s", "absolute": "2s"}, "skew": "0s"}
    w.gateway = Gateway({"apps": {"o": {"servers": [w.app.address]}}, "routes": [route("m", "token", token=minted)]},
                        folder=tmp_path)

    def records():
        return json.loads(w.gateway.admin("GET", "/v1/status").body)["store"]["records"]

    before = records()
    token = w.visitor("m").cookies["login"]
    told = json.loads(w.ended("--jti", "-", "--json", input=token))
    assert 0 <= told["until"] - time.time() <= 3
    assert records() == before + 1
    deadline = time.monotonic() + 60
    while records() > before:
        assert time.monotonic() < deadline, "the note stays"
        time.sleep(0.2)
    said = tokens.claims_of(token)
    assert json.loads(w.admin("GET", f"/v1/tokens?issuer={SHOP}&jti={said['jti']}").body)["token"] == "not ended"


# ---- what is refused ----


@pytest.mark.parametrize("args, text", [
    ([], "one of --subject, --jti, --session, --sealed and --pin"),
    (["--subject", "a", "--pin", "b"], "one of --subject"),
    (["--subject", "a", "b"], "one of --subject"),
    (["--subject", ""], "a subject has 1 to 255 bytes"),
    (["--subject", "x" * 256], "a subject has 1 to 255 bytes"),
    (["--jti", "x"], "--jti needs --issuer"),
    (["--jti", "-", "--issuer", "x"], "leave out --issuer"),
    (["--issuer", "x", "--subject", "a"], "--issuer goes with --jti"),
    (["--jti", "x" * 4000, "--issuer", "y"], "too long"),
    (["--session", "x"], "is no handle, and no cookie of a session"),
    (["--sealed", "x"], "is no id, and no cookie of a sealed state"),
    (["--pin", "x"], "is no id, and no cookie with a pin"),
    (["--pin", "x" * 16], "is no id, and no cookie with a pin"),
    (["--sid", "x"], "there is no flag --sid"),
])
def test_wrong_usage(shared, args, text):
    done = shared.revoke(*args)
    assert done.returncode == 2 and text in done.stderr, done


@pytest.mark.parametrize("flag", ["--jti", "--session", "--sealed", "--pin"])
@pytest.mark.parametrize("said", ["", "\n", "a.b.c", "e30.e30.x", "eyJqdGkiOjF9.eyJqdGkiOjF9.x.x.x", "=", "\0", "x" * 20000])
def test_nonsense_on_stdin(shared, flag, said):
    done = shared.revoke(flag, "-", input=said)
    assert done.returncode in (1, 2) and done.stdout == "" and done.stderr.startswith("stateway"), done


def test_admin_api_is_strict(shared):
    for path, status in [("/v1/tokens", 400), ("/v1/tokens?issuer=a", 400), ("/v1/tokens?jti=a", 400),
                         ("/v1/tokens?issuer=a&jti=", 400), ("/v1/tokens?issuer=a&jti=b&jti=c", 400),
                         ("/v1/tokens?issuer=a&jti=b&x=y", 400), ("/v1/tokens?issuer=a&jti=" + "x" * 1025, 400),
                         ("/v1/tokens?issuer=a&jti=" + "x" * 5000, 414),
                         ("/v1/tokens/x", 404), ("/v1/sealed", 404), ("/v1/sealed/" + "A" * 42, 404),
                         ("/v1/pins/" + "A" * 16, 404), ("/v1/pins/0", 404), ("/v1/pins/" + "0" * 16 + "/", 404)]:
        for method in ("GET", "DELETE"):
            got = shared.admin(method, path)
            assert got.status == status, (method, path, got)
    pin = "/v1/pins/" + "0" * 16
    assert shared.admin("POST", pin).status in (403, 405)
    with Raw(shared.gateway.admin_address) as raw:
        assert raw.request("DELETE", pin).status == 403, "without the guard"
    assert shared.admin("GET", pin).json() == {"pin": "not ended", "until": None}


def test_where_no_route_has_such(world):
    w = world()
    w.gateway.close()
    w.gateway = Gateway({"apps": {"o": {"servers": [w.app.address]}}, "routes": [route("s", "session")]},
                        folder=w.folder)
    for args, text in [(["--issuer", "a", "--jti", "b"], "no route takes tokens"),
                       (["--sealed", "A" * 43], "no route has `state: sealed`"),
                       (["--pin", "0" * 16], "no route has `state: sticky`")]:
        done = w.revoke(*args)
        assert done.returncode == 1 and text in done.stderr, done


def test_no_secret_in_logs(shared):
    v, x, p = shared.visitor("s", "erna"), shared.visitor("x", "erna"), Visitor(shared.gateway, "/p")
    m = shared.visitor("m", "erna")
    assert p.ask("GET").status == 200
    for flag, secret in (("--session", v.sid), ("--sealed", x.cookies["box"]), ("--pin", p.cookies["pin"]),
                         ("--jti", m.cookies["login"])):
        done = subprocess.run([BINARY, "revoke", flag, "-", "-c", shared.gateway.file], input=secret, text=True,
                              capture_output=True, check=True)
        assert secret not in done.stdout + done.stderr + shared.gateway.log()
    shared.ended("--subject", "erna")
    assert "erna" not in shared.gateway.log()
