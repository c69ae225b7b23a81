"""The admin API and the metrics of a running gateway: meaning, promtool, crowds, slow clients, garbage."""
import concurrent.futures
import os
import random
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

import harness
from harness import Raw, app_command, wait_for

PROMTOOL = shutil.which("promtool") or "/usr/bin/promtool"
GUARD = ("Stateway-Admin", "1")


def config(**more):
    return {"apps": {"web": {"command": app_command(), "replicas": 2}},
            "routes": [{"path": "/*", "app": "web", "state": "none"}], **more}


@pytest.fixture
def web(gateway, engine):
    return gateway(config(), engine=engine)


def ask(gateway, method, path, headers=(), body=None, **options):
    """Without the headers that Gateway.admin adds."""
    with Raw(gateway.admin_address, **options) as raw:
        return raw.request(method, path, headers, body)


def scrape(gateway, headers=()):
    answer = ask(gateway, "GET", "/metrics", headers)
    assert answer.status == 200
    assert answer.get("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    return answer.body.decode()


def samples(text):
    """{series: value}"""
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
            for line in text.splitlines() if not line.startswith("#")}


def promtool(text):
    if not os.access(PROMTOOL, os.X_OK):
        pytest.skip("promtool is not installed (Debian: prometheus)")
    checked = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True,
                             check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def error(answer):
    assert answer.get("content-type") == "application/json"
    told = answer.json()
    assert set(told) == {"error", "reason"} and told["error"]
    return answer.status, told["reason"]


# ---- what it says ----


def test_health_and_status(web):
    assert ask(web, "GET", "/healthz").body == b"ok\n"
    assert ask(web, "GET", "/readyz").body == b"ready\n"
    status = ask(web, "GET", "/v1/status").json()
    assert status["version"] == "0.1.0"
    assert status["engine"] == {"uring": "io_uring", "epoll": "epoll"}[web.config["engine"]]
    assert (status["workers"], status["ready"], status["stopping"]) == (2, True, False)
    assert 0 <= status["uptime_s"] < 60


def test_apps(web):
    apps = ask(web, "GET", "/v1/apps").json()["apps"]
    assert [app["name"] for app in apps] == ["web"]
    instances = apps[0]["instances"]
    assert [i["name"] for i in instances] == ["web/1", "web/2"]
    assert {i["name"]: i["pid"] for i in instances} == web.instances()
    for i in instances:
        assert re.fullmatch("[0-9a-f]{16}", i["incarnation"])
        assert re.fullmatch(r"127\.0\.0\.1:\d+", i["address"])
        assert (i["state"], i["in_flight"], i["failed"]) == ("healthy", 0, 0)
    for _ in range(7):
        assert web.get("/").status == 200
    assert sum(i["answered"] for i in web.apps()["web"]) == 7


def test_not_ready_without_an_instance(gateway, engine):
    port = harness.free_port()
    config_ = config()
    config_["apps"]["web"] = {"servers": [f"127.0.0.1:{port}"]}
    g = gateway(config_, engine=engine, ready=False)

    def readyz():
        try:
            return ask(g, "GET", "/readyz")
        except OSError:
            return None

    answer = wait_for(readyz)
    assert answer.status == 503
    assert answer.body == b"not ready: app web has no healthy instance\n"
    assert ask(g, "GET", "/healthz").status == 200


def test_readyz_while_stopping(gateway, engine):
    g = gateway(config(), engine=engine)
    with g.connect() as slow:
        slow.send(harness.request_bytes("GET", "/slow/2"))
        wait_for(lambda: samples(scrape(g))["stateway_exchanges_in_progress"] == 1)
        g.process.terminate()
        wait_for(lambda: ask(g, "GET", "/readyz").body.startswith(b"stopping"))
        assert ask(g, "GET", "/readyz").status == 503
        assert ask(g, "GET", "/healthz").get("connection") == "close"
        assert slow.read().status == 200


# ---- metrics ----


def documented():
    text = (harness.ROOT / "docs" / "admin.md").read_text()
    return set(re.findall(r"^\| `((?:stateway|process)_\w+)", text, re.MULTILINE))


def test_metrics_are_clean_and_documented(gateway, engine, tmp_path):
    keys = tmp_path / "jwks.json"
    keys.write_text('{"keys":[{"kty":"oct","alg":"HS256","kid":"a","k":"%s"}]}' % ("A" * 43))
    g = gateway({"apps": {"web": {"command": app_command(), "replicas": 2}},
                 "routes": [{"path": "/none/*", "app": "web", "state": "none"},
                            {"path": "/session/*", "app": "web", "state": "session"},
                            {"path": "/token/*", "app": "web", "state": "token",
                             "token": {"keys": str(keys), "issuer": "https://id.example", "audience": ["web"]}},
                            {"path": "/sticky/*", "app": "web", "state": "sticky"}]}, engine=engine)
    for path in ("/none/", "/session/", "/sticky/", "/nowhere"):
        g.get(path)
    text = scrape(g)
    promtool(text)
    assert set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)) == documented()
    found = samples(text)
    for place in ("none", "session", "sticky"):
        assert found[f'stateway_exchange_duration_seconds_count{{app="web",placement="{place}"}}'] == 1
    assert found['stateway_exchanges_total{app="",placement="none",status="404",verdict="none"}'] == 1
    assert found['stateway_errors_total{reason="no-route"}'] == 1
    assert found['stateway_instances{app="web",state="healthy"}'] == 2
    assert [name for name in found if name.startswith("stateway_build_info")] == [
        'stateway_build_info{version="0.1.0",engine="%s"}' % {"uring": "io_uring"}.get(engine, engine)]


def test_metrics_count(web):
    before = samples(scrape(web))
    for _ in range(25):
        assert web.get("/").status == 200
    ok = 'stateway_exchanges_total{app="web",placement="none",status="200",verdict="none"}'

    def counted():
        now = samples(scrape(web))
        return now if now.get(ok) == 25 else None

    after = wait_for(counted)
    assert before.get(ok, 0) == 0
    assert after["stateway_connections_total"] - before["stateway_connections_total"] == 25
    name = 'stateway_exchange_duration_seconds_bucket{app="web",placement="none",le="%s"}'
    buckets = [after[name % le] for le in ("0.0005", "0.01", "1", "10", "+Inf")]
    assert buckets == sorted(buckets) and buckets[-1] == 25
    assert sum(v for k, v in after.items() if k.startswith("stateway_instance_answers_total")) == 25
    assert after['stateway_bytes_total{direction="out"}'] > before['stateway_bytes_total{direction="out"}']


def test_process_metrics_are_true(web):
    found = samples(scrape(web))
    pid = web.gateway_pid()
    fds = len(os.listdir(f"/proc/{pid}/fd"))
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    rss = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    assert abs(found["process_open_fds"] - fds) <= 2
    assert abs(found["process_start_time_seconds"] - boot - ticks / os.sysconf("SC_CLK_TCK")) < 1
    assert 0.5 < found["process_resident_memory_bytes"] / rss < 2
    assert 0 < found["process_cpu_seconds_total"] < 60


def test_counters_never_fall_while_scraped_in_a_crowd(web):
    def reader(_):
        seen, text = {}, ""
        for _ in range(8):
            text = scrape(web)
            now = samples(text)
            for name, value in now.items():
                if "_total" in name or "_bucket" in name or "_count" in name:
                    assert value >= seen.get(name, 0), name
            seen = now
        return text

    def visitor(_):
        for _ in range(40):
            assert web.get("/").status == 200

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        visitors = [pool.submit(visitor, n) for n in range(4)]
        texts = list(pool.map(reader, range(16)))
        for v in visitors:
            v.result()
    promtool(texts[0])
    assert samples(scrape(web))["stateway_connections_total"] == 160


# ---- commands ----


def test_kill_and_replace(web):
    old = {i["name"]: i for i in web.apps()["web"]}
    answer = ask(web, "POST", "/v1/instances/web/1/kill", [GUARD])
    assert (answer.status, answer.json()) == (202, {"accepted": "kill", "instance": "web/1"})

    def replaced():
        now = {i["name"]: i for i in web.apps()["web"] if i["state"] == "healthy"}
        return now if len(now) == 2 and now["web/1"]["incarnation"] != old["web/1"]["incarnation"] else None

    now = wait_for(replaced)
    assert now["web/1"]["pid"] != old["web/1"]["pid"]
    assert now["web/2"]["incarnation"] == old["web/2"]["incarnation"]


def test_roll(web):
    old = {i["incarnation"] for i in web.apps()["web"]}
    promtool(scrape(web))
    answer = ask(web, "POST", "/v1/apps/web/roll", [GUARD], b"{}")
    assert (answer.status, answer.json()) == (202, {"accepted": "roll", "app": "web"})
    promtool(scrape(web)) # two incarnations of one name are one series
    assert error(ask(web, "POST", "/v1/apps/web/roll", [GUARD])) == (409, "conflict")

    def rolled():
        now = [i for i in web.apps()["web"]]
        return len(now) == 2 and not old & {i["incarnation"] for i in now}

    wait_for(rolled, 60)


def test_drain_and_undrain(gateway, engine, origin):
    first, second = (origin(lambda asked, raw: harness.answer(200, b"x")) for _ in range(2))
    g = gateway({"apps": {"web": {"servers": [first.address, second.address]}},
                 "routes": [{"path": "/*", "app": "web", "state": "none"}]}, engine=engine)

    def states():
        return [i["state"] for i in g.apps()["web"]]

    assert states() == ["healthy", "healthy"]
    assert ask(g, "POST", "/v1/instances/web/2/drain", [GUARD]).status == 202
    wait_for(lambda: states() == ["healthy", "draining"])
    assert ask(g, "POST", "/v1/instances/web/2/undrain", [GUARD]).status == 202
    wait_for(lambda: states() == ["healthy", "healthy"])
    assert error(ask(g, "POST", "/v1/instances/web/2/kill", [GUARD])) == (501, "unsupported")
    assert error(ask(g, "POST", "/v1/apps/web/roll", [GUARD])) == (501, "unsupported")


@pytest.mark.parametrize("method, path, headers, expected", [
    ("POST", "/v1/apps/nobody/roll", [GUARD], (404, "not-found")),
    ("POST", "/v1/instances/web/9/kill", [GUARD], (404, "not-found")),
    ("POST", "/v1/instances/web/x/kill", [GUARD], (404, "not-found")),
    ("POST", "/v1/instances/web/1/kill", [], (403, "guard")),
    ("POST", "/v1/instances/web/1/kill", [GUARD, ("Sec-Fetch-Site", "cross-site")], (403, "cross-site")),
    ("POST", "/v1/instances/web/1/kill", [GUARD, ("Origin", "http://a.example"), ("Host", "a.example")],
     (403, "host")),
    ("GET", "/v1/instances/web/1/kill", [GUARD], (405, "no-method")),
    ("DELETE", "/v1/apps", [GUARD], (405, "no-method")),
    ("GET", "/", [], (404, "not-found")),
    ("GET", "/v1/apps/../status", [], (400, "target")),
])
def test_refusals(gateway, method, path, headers, expected):
    g = gateway(config())
    before = g.instances()
    answer = ask(g, method, path, headers)
    assert error(answer) == expected
    if expected[0] == 405:
        assert answer.get("allow") == ("POST" if "kill" in path else "GET, HEAD")
    assert g.instances() == before


@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_token(gateway, engine, tmp_path, where):
    address = f"127.0.0.1:{harness.free_port()}" if where == "tcp" else f"unix:{tmp_path}/admin"
    g = gateway(config(admin={"address": address, "token": "correct-horse"}), engine=engine)
    for path in ("/metrics", "/v1/apps", "/v1/status", "/nowhere"):
        for headers in ((), [("Authorization", "Bearer correct-hors")], [("Authorization", "Basic correct-horse")]):
            answer = ask(g, "GET", path, headers)
            assert error(answer) == (401, "token")
            assert answer.get("www-authenticate").startswith("Bearer")
    right = ("Authorization", "Bearer correct-horse")
    scrape(g, [right])
    assert error(ask(g, "GET", "/nowhere", [right])) == (404, "not-found")
    assert error(ask(g, "POST", "/v1/apps/web/roll", [GUARD])) == (401, "token")
    assert error(ask(g, "POST", "/v1/apps/web/roll", [right])) == (403, "guard")
    assert ask(g, "POST", "/v1/apps/web/roll", [right, GUARD]).status == 202
    assert ask(g, "GET", "/healthz").status == ask(g, "GET", "/readyz").status == 200
    assert "correct-horse" not in g.log()


def test_through_the_gateway(gateway, engine):
    """As the demo does it: the gateway strips Stateway-*, so the guard has a second name."""
    admin = f"127.0.0.1:{harness.free_port()}"
    g = gateway({"admin": {"address": admin},
                 "apps": {"web": {"command": app_command()}, "admin": {"servers": [admin]}},
                 "routes": [{"path": "/control/*", "app": "admin", "state": "none", "strip": "/control"},
                            {"path": "/*", "app": "web", "state": "none"}]}, engine=engine)
    assert [a["name"] for a in g.get("/control/v1/apps").json()["apps"]] == ["web", "admin"]
    promtool(g.get("/control/metrics").body.decode())
    assert error(g.post("/control/v1/instances/web/1/kill", headers=[GUARD])) == (403, "guard")
    old = g.instances()["web/1"]
    assert g.post("/control/v1/instances/web/1/kill", headers=[
        ("X-Stateway-Admin", "1"), ("Origin", "http://shop.example"), ("Host", "shop.example")]).status == 202
    wait_for(lambda: g.instances().get("web/1", old) != old)
    assert g.get("/control/v1/status").json()["ready"] is True


# ---- HTTP ----


def test_head_pipelining_and_keep_alive(web):
    with Raw(web.admin_address) as raw:
        for _ in range(50):
            assert raw.request("GET", "/healthz").body == b"ok\n"
        length = raw.request("HEAD", "/v1/apps").get("content-length")
        assert raw.request("GET", "/v1/apps").get("content-length") == length
        raw.send((harness.request_bytes("GET", "/metrics") + harness.request_bytes("GET", "/healthz")) * 10)
        for _ in range(10):
            assert raw.read().status == 200
            assert raw.read().body == b"ok\n"
        raw.send(harness.request_bytes("GET", "/metrics") * 3)
        raw.shutdown()
        assert [raw.read().status for _ in range(3)] == [200] * 3
        assert raw.is_closed()


def test_bodies(web):
    assert ask(web, "POST", "/v1/apps/nobody/roll", [GUARD], b"x" * 16384).status == 404
    assert error(ask(web, "POST", "/v1/apps/web/roll", [GUARD, ("Content-Length", "16385")])) == (413, "body-large")
    with Raw(web.admin_address) as raw:
        raw.send(harness.request_bytes("POST", "/v1/apps/nobody/roll", [GUARD, ("Transfer-Encoding", "chunked")]))
        raw.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n1\r\nx\r\n0\r\n\r\n")
        assert error(raw.read()) == (413, "body-large")
    with Raw(web.admin_address) as raw:
        raw.send(harness.request_bytes("POST", "/v1/apps/nobody/roll",
                                       [GUARD, ("Expect", "100-continue"), ("Content-Length", "2")]))
        assert raw.read(interim=True).status == 100
        assert raw.send(b"{}").read().status == 404


def test_one_byte_at_a_time(web):
    with Raw(web.admin_address) as raw:
        raw.send(harness.request_bytes("GET", "/metrics"), cut=1)
        promtool(raw.read().body.decode())


def test_garbage(web):
    rng = random.Random(1)
    for n in range(200):
        start = rng.choice([b"", b"GET / HTTP/1.1\r\n", b"POST /v1/apps/web/roll HTTP/1.1\r\nHost: a\r\n", b"\x16\x03\x01"])
        with Raw(web.admin_address) as raw:
            try:
                raw.send(start + rng.randbytes(rng.randrange(1, 40000)))
                if n % 3 == 0:
                    raw.reset()
                    continue
                raw.shutdown()
                data = raw.read_rest()
                assert data == b"" or re.match(rb"HTTP/1\.1 [45]\d\d ", data)
            except (ConnectionError, BrokenPipeError):
                pass
    assert ask(web, "GET", "/healthz").status == 200
    assert len(web.apps()["web"]) == 2


def test_large_heads(web):
    assert ask(web, "GET", "/healthz?" + "x" * 5000).status == 414
    assert ask(web, "GET", "/healthz", [("A", "x" * 9000)]).status == 431
    assert ask(web, "GET", "/healthz", [(f"A{n}", "x") for n in range(70)]).status == 431


def test_slow_readers_do_not_hold_others(web):
    deaf = []
    for _ in range(12):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        s.connect(web.admin_address)
        s.sendall(harness.request_bytes("GET", "/metrics") * 40)
        deaf.append(s)
    time.sleep(0.3)
    for _ in range(20):
        started = time.monotonic()
        assert ask(web, "GET", "/healthz").status == 200
        answer = ask(web, "GET", "/metrics")
        assert answer.status in (200, 503)
        assert time.monotonic() - started < 5
        assert web.get("/").status == 200
    for s in deaf:
        s.close()
    wait_for(lambda: ask(web, "GET", "/v1/apps").status == 200)


def test_the_silent_make_room(web):
    quiet = [Raw(web.admin_address) for _ in range(100)]
    for n, raw in enumerate(quiet):
        if n % 2:
            raw.send(b"GET /metr")
    for _ in range(10):
        assert ask(web, "GET", "/v1/status").status == 200
    for raw in quiet:
        raw.close()
    assert ask(web, "GET", "/healthz").status == 200


def test_memory_stays(web):
    """Scrapes, cut or whole, leave nothing behind."""
    def resident():
        return samples(scrape(web))["process_resident_memory_bytes"]

    def some(count):
        for n in range(count):
            with Raw(web.admin_address) as raw:
                raw.send(harness.request_bytes("GET", "/metrics"))
                if n % 2:
                    raw.reset()
                else:
                    raw.read()

    some(200)
    before, fds = resident(), samples(scrape(web))["process_open_fds"]
    some(600)
    assert resident() - before < (64 if harness.sanitized() else 4) << 20
    wait_for(lambda: abs(samples(scrape(web))["process_open_fds"] - fds) <= 2)
