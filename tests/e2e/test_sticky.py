"""state: sticky over the wire: pins, what becomes of them, drains and rolls as their visitors see them."""
import base64
import concurrent.futures
import json
import os
import re
import signal
import time

import pytest

from harness import PYTHON, sanitized, stateway, wait_for

COOKIE = re.compile(r"pin-web=([A-Za-z0-9_-]{76}); Path=/; HttpOnly; SameSite=Lax")

# Keeps a counter for everybody in its memory, and tells what it got.
APP = r'''
import http.server, json, os
count = 0
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        global count
        count += 1
        data = json.dumps({"pid": os.getpid(), "count": count,
                           "headers": {k.lower(): v for k, v in self.headers.items()}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    do_POST = do_GET
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
'''


def route(path="/*", **sticky):
    return {"path": path, "app": "web", "state": "sticky", "expose": ["verdict", "instance"],
            **({"sticky": sticky} if sticky else {})}


def config(*routes, replicas=3, **app):
    return {"apps": {"web": {"command": [PYTHON, "-c", APP], "replicas": replicas, **app}},
            "routes": list(routes) or [route()]}


class Visitor:
    def __init__(self, gateway, name="pin-web"):
        self.gateway, self.name, self.cookies = gateway, name, {}

    def ask(self, path="/", method="GET", headers=()):
        got = self.gateway.request(method, path, list(headers) + (
            [("Cookie", f"{self.name}={self.pin}")] if self.pin else []), b"" if method == "POST" else None)
        for line in got.all("set-cookie"):
            name, _, value = line.split(";", 1)[0].partition("=")
            if "max-age=0" in line.lower():
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        got.told = got.json() if got.status == 200 else None
        got.verdict = got.get("stateway-verdict")
        return got

    @property
    def pin(self):
        return self.cookies.get(self.name)

    @pin.setter
    def pin(self, value):
        self.cookies[self.name] = value

    def fields(self):
        raw = base64.urlsafe_b64decode(self.pin)
        assert len(raw) == 57
        at = {"format": (0, 1), "key": (1, 5), "epoch": (5, 9), "id": (9, 17), "incarnation": (17, 25),
              "issued": (25, 33), "seen": (33, 41)}
        return {name: int.from_bytes(raw[a:b], "big") for name, (a, b) in at.items()}


def where(gateway, state=None):
    """{incarnation: instance} of the app."""
    return {int(i["incarnation"], 16): i for i in gateway.apps()["web"] if state in (None, i["state"])}


def metric(gateway, name):
    for line in gateway.admin("GET", "/metrics").body.decode().splitlines():
        if line.startswith(name + " "):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no metric {name}")


def command(gateway, path):
    assert gateway.admin("POST", path).status == 202


def kill(gateway, pid):
    """SIGKILL to an instance; answers when the gateway knows."""
    before = {i["pid"] for i in where(gateway).values()}
    assert pid in before
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in {i["pid"] for i in where(gateway, "healthy").values()})


def all_healthy(gateway, count=3):
    wait_for(lambda: [i["state"] for i in where(gateway).values()] == ["healthy"] * count)


# ---- the pin ----


def test_pin(gateway, engine):
    g = gateway(config(), engine=engine)
    visitor = Visitor(g)
    got = visitor.ask()
    assert (got.status, got.verdict, got.told["headers"]["stateway-verdict"]) == (200, "fresh", "fresh")
    assert COOKIE.fullmatch(got.get("set-cookie")), got.get("set-cookie")
    assert got.get("cache-control") == "private"
    fields = visitor.fields()
    assert (fields["format"], fields["epoch"]) == (1, 0)
    assert fields["issued"] == fields["seen"] and abs(fields["seen"] - time.time()) < 5
    assert where(g)[fields["incarnation"]]["pid"] == got.told["pid"]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:  # on both workers
        answers = list(pool.map(lambda _: visitor.ask(), range(40)))
    assert {a.told["pid"] for a in answers} == {got.told["pid"]}
    assert {a.verdict for a in answers} == {"kept"}
    assert not any(a.all("set-cookie") for a in answers)  # sent only when it changes
    assert not any("cookie" in a.told["headers"] for a in answers)
    assert {a.get("stateway-instance") for a in answers} == {answers[0].told["headers"]["stateway-instance"]}
    assert "stateway-state" not in answers[0].told["headers"]
    # Newcomers are spread.
    crowd = [Visitor(g) for _ in range(12)]
    assert len({v.ask().told["pid"] for v in crowd}) == 3
    assert len({v.fields()["id"] for v in crowd}) == 12
    wait_for(lambda: sum(i["sessions"] for i in where(g).values()) == 13)
    assert all(3 <= i["sessions"] <= 6 for i in where(g).values()), "fewest visitors first"


def test_forged_pins(gateway):
    g = gateway(config(replicas=2))
    visitor = Visitor(g)
    visitor.ask()
    raw = base64.urlsafe_b64decode(visitor.pin)
    bad = ["", "x", "A" * 76, visitor.pin[:-1], visitor.pin + "A", visitor.pin + "=", visitor.pin[:-4], "%" * 76, "a" * 4000]
    for at in range(57):
        flipped = bytearray(raw)
        flipped[at] ^= 1 << (at % 8)
        bad.append(base64.urlsafe_b64encode(flipped).decode())
    for value in bad:
        forged = Visitor(g)
        forged.pin = value
        got = forged.ask()
        assert (got.status, got.verdict, got.told["headers"]["stateway-verdict"]) == (200, "fresh", "fresh"), value
        assert COOKIE.fullmatch(got.get("set-cookie"))
        assert forged.fields()["id"] != visitor.fields()["id"]
    assert visitor.ask().verdict == "kept"


def test_cookie_names_and_attributes(gateway):
    g = gateway({**config(
        route("/a/*", cookie={"name": "a", "path": "/a", "same-site": "strict", "secure": "yes"}),
        route("/b/*", cookie={"name": "b", "secure": "no"}), route("/*")), "trusted": ["127.0.0.1"]})
    https = [("X-Forwarded-Proto", "https")]
    for path, headers, pattern in (
            ("/a/", [], r"a=[\w-]{76}; Path=/a; HttpOnly; SameSite=Strict; Secure"),
            ("/b/", https, r"b=[\w-]{76}; Path=/; HttpOnly; SameSite=Lax"),
            ("/", https, r"__Host-pin-web=[\w-]{76}; Path=/; HttpOnly; SameSite=Lax; Secure"),
            ("/", [], r"pin-web=[\w-]{76}; Path=/; HttpOnly; SameSite=Lax")):
        got = Visitor(g).ask(path, headers=headers)
        assert re.fullmatch(pattern, got.get("set-cookie")), (path, got.get("set-cookie"))


def test_a_pin_is_of_one_service(gateway):
    """Two apps, one cookie name (on hosts that never meet), one key ring: the MAC holds the app too."""
    both = {"apps": {name: {"command": [PYTHON, "-c", APP], "replicas": 1} for name in ("one", "two")},
            "routes": [{"path": "/*", "host": f"{name}.example", "app": name, "state": "sticky",
                        "sticky": {"cookie": {"name": "pin"}, "on-loss": "fail"}, "expose": ["verdict"]}
                       for name in ("one", "two")]}
    g = gateway(both)
    one, two = Visitor(g, "pin"), Visitor(g, "pin")
    assert one.ask(headers=[("Host", "one.example")]).verdict == "fresh"
    two.pin = one.pin
    got = two.ask(headers=[("Host", "two.example")])
    assert (got.status, got.verdict) == (200, "fresh")
    assert two.pin != one.pin


def test_two_apps_with_one_cookie_name_are_refused(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps({
        "apps": {name: {"servers": ["127.0.0.1:1"]} for name in ("one", "two")},
        "routes": [{"path": f"/{name}/*", "app": name, "state": "sticky", "sticky": {"cookie": {"name": "pin"}}}
                   for name in ("one", "two")]}))
    done = stateway("check", file)
    assert done.returncode == 1, done
    assert "two apps with one cookie name: `pin`" in done.stdout + done.stderr


def test_times_of_a_pin(gateway):
    g = gateway(config(route("/long/*", idle="20s"), route("/idle/*", idle="2s"),
                       route("/abs/*", idle="2s", absolute="3s"), replicas=2))
    long, idle, absolute = Visitor(g), Visitor(g), Visitor(g)
    first = long.ask("/long/")
    idle.ask("/idle/")
    absolute.ask("/abs/")
    before, began = long.fields(), time.time()
    verdicts = []
    assert not long.ask("/long/").all("set-cookie")
    for _ in range(5):
        time.sleep(1)
        verdicts.append(absolute.ask("/abs/").verdict)
    # absolute: renewed while it is used, and over all the same
    assert "expired" in verdicts and verdicts[:2] == ["kept"] * 2
    got = long.ask("/long/")  # a tenth of the idle time has passed
    after = long.fields()
    assert (got.verdict, got.told["pid"]) == ("kept", first.told["pid"])
    assert COOKIE.fullmatch(got.get("set-cookie"))
    assert after["seen"] - before["seen"] >= int(time.time() - began) - 1
    assert {k: v for k, v in after.items() if k != "seen"} == {k: v for k, v in before.items() if k != "seen"}
    got = idle.ask("/idle/")
    assert (got.verdict, got.told["headers"]["stateway-verdict"]) == ("expired", "expired")
    assert got.all("set-cookie")
    assert idle.ask("/idle/").verdict == "kept"


def test_csrf(gateway):
    g = gateway(config(replicas=1))
    visitor = Visitor(g)
    cross = [("Sec-Fetch-Site", "cross-site")]
    assert visitor.ask("/", "POST", cross).status == 200  # no pin yet: nothing to abuse
    assert visitor.ask("/", "POST", cross).get("stateway-error") == "cross-site"
    assert visitor.ask("/", "GET", cross).status == 200


# ---- losses ----


def test_loss(gateway, engine):
    g = gateway(config(route("/repin/*"), route("/notify/*", **{"on-loss": "notify"}), route("/fail/*", **{"on-loss": "fail"})),
                engine=engine)
    for way, app_verdict in (("repin", "fresh"), ("notify", "lost")):
        visitor = Visitor(g)
        first = visitor.ask(f"/{way}/")
        before, lost = visitor.fields(), metric(g, "stateway_pins_lost_total")
        kill(g, first.told["pid"])
        got = visitor.ask(f"/{way}/")
        assert (got.status, got.verdict, got.told["headers"]["stateway-verdict"]) == (200, "lost", app_verdict)
        assert got.told["pid"] != first.told["pid"]
        after = visitor.fields()
        assert after["epoch"] == before["epoch"] + 1
        assert (after["id"], after["incarnation"]) != (before["id"], before["incarnation"])
        assert metric(g, "stateway_pins_lost_total") == lost + 1
        got = visitor.ask(f"/{way}/")
        assert (got.verdict, got.all("set-cookie")) == ("kept", [])
        all_healthy(g)
        assert visitor.ask(f"/{way}/").told["pid"] == got.told["pid"]  # no failback
    visitor = Visitor(g)
    first = visitor.ask("/fail/")
    kill(g, first.told["pid"])
    old = visitor.pin
    got = visitor.ask("/fail/")
    assert (got.status, got.get("stateway-error"), got.get("retry-after")) == (503, "state-lost", "1")
    assert got.get("set-cookie") == "pin-web=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"
    assert visitor.pin is None  # told once
    assert (visitor.ask("/fail/").verdict, visitor.ask("/fail/").verdict) == ("fresh", "kept")
    visitor.pin = old  # who keeps the cookie is told again
    assert visitor.ask("/fail/").status == 503


def test_loss_that_the_gateway_has_not_seen_yet(gateway, engine):
    """The request itself meets the dead instance: GET goes elsewhere and tells; POST was sent, or not."""
    g = gateway(config(route("/*", **{"on-loss": "notify"})), engine=engine)
    for method in ("GET", "POST"):
        visitor = Visitor(g)
        pid = visitor.ask("/", method).told["pid"]
        os.kill(pid, signal.SIGKILL)
        got = visitor.ask("/", method)
        if got.status == 200:
            assert got.verdict == "lost"
            assert got.told["headers"]["stateway-verdict"] == "lost"
        else:
            assert (method, got.status) == ("POST", 502)
            wait_for(lambda: pid not in {i["pid"] for i in where(g, "healthy").values()})
            assert visitor.ask("/", method).verdict == "lost"
        all_healthy(g)


def test_pins_outlive_the_gateway(gateway, engine):
    g = gateway(config(), engine=engine)
    visitors = [Visitor(g) for _ in range(6)]
    told = [v.ask().told for v in visitors]
    incarnations = {n: i["pid"] for n, i in where(g).items()}
    g.kill_gateway()
    assert {n: i["pid"] for n, i in where(g).items()} == incarnations
    for visitor, before in zip(visitors, told):
        got = visitor.ask()
        assert (got.verdict, got.told["pid"]) == ("kept", before["pid"])
        assert got.told["count"] > before["count"]
        assert not got.all("set-cookie")
    assert "lost" not in {v.ask().verdict for v in visitors}


# ---- drain and roll ----


def test_drain(gateway, engine):
    g = gateway(config(drain={"deadline": "4s"}), engine=engine)
    bound = Visitor(g)
    first = bound.ask()
    name, incarnation = first.get("stateway-instance"), bound.fields()["incarnation"]
    wait_for(lambda: where(g)[incarnation]["sessions"] == 1)
    began = time.monotonic()
    command(g, f"/v1/instances/{name}/drain")
    wait_for(lambda: where(g)[incarnation]["state"] == "draining")
    assert bound.ask().told["pid"] == first.told["pid"]
    newcomers = [Visitor(g) for _ in range(9)]
    assert first.told["pid"] not in {v.ask().told["pid"] for v in newcomers}
    assert where(g)[incarnation]["sessions"] == 1
    wait_for(lambda: len(where(g)) == 4)  # its slot is filled before it goes
    while time.monotonic() - began < 3:
        assert (bound.ask().verdict, bound.ask().told["pid"]) == ("kept", first.told["pid"])
        time.sleep(0.2)
    wait_for(lambda: incarnation not in where(g), 8, "the deadline")
    assert time.monotonic() - began > 3.5
    got = bound.ask()
    assert (got.verdict, got.told["pid"] == first.told["pid"]) == ("lost", False)
    all_healthy(g)


def test_drain_ends_when_nobody_is_left(gateway):
    g = gateway(config(route("/*", idle="2s"), drain={"deadline": "10m"}))
    bound = Visitor(g)
    first = bound.ask()
    incarnation = bound.fields()["incarnation"]
    command(g, f"/v1/instances/{first.get('stateway-instance')}/drain")
    wait_for(lambda: incarnation not in where(g), 15, "the end of the drain")
    assert bound.ask().verdict in ("lost", "expired")
    empty = next(i for i in where(g, "healthy").values() if i["sessions"] == 0)
    command(g, f"/v1/instances/{empty['name']}/drain")
    wait_for(lambda: int(empty["incarnation"], 16) not in where(g), 15)


def test_roll(gateway, engine):
    """Everybody is told once that his state is lost, and it is counted; nobody sees an error."""
    g = gateway(config(route("/*", **{"on-loss": "notify"}), drain={"deadline": "1s"}), engine=engine)
    visitors = [Visitor(g) for _ in range(9)]
    pids = {v.ask().told["pid"] for v in visitors}
    assert len(pids) == 3
    before = set(where(g))
    command(g, "/v1/apps/web/roll")
    losses = [0] * len(visitors)
    ends = time.monotonic() + (60 if sanitized() else 30)
    while (set(where(g)) & before or len(where(g, "healthy")) < 3) and time.monotonic() < ends:
        for n, visitor in enumerate(visitors):
            got = visitor.ask()
            assert got.status == 200
            losses[n] += got.verdict == "lost"
            assert got.told["headers"]["stateway-verdict"] == got.verdict
    assert not set(where(g)) & before
    for n, visitor in enumerate(visitors):
        losses[n] += visitor.ask().verdict == "lost"
        assert visitor.ask().verdict == "kept"
    # Who lands on an old one that is still to go is told again, but never twice for one loss.
    assert all(1 <= count <= 3 for count in losses), losses
    assert metric(g, "stateway_pins_lost_total") == sum(losses)
    assert all(v.fields()["epoch"] == count for v, count in zip(visitors, losses))
