"""The example apps by themselves: the shop and the counter in C, and the counters of examples/.

The headers are sent as the gateway would send them; that the gateway does send them is tested elsewhere.
STATEWAY_BUILD says where the apps were built (default: build).
"""
import concurrent.futures
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import browser  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("STATEWAY_BUILD", "build"))
APPS = (BUILD if BUILD.is_absolute() else ROOT / BUILD) / "apps"
EXAMPLES = ROOT / "examples" / "counter"
PYTHON = "/usr/bin/python3"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class App:
    """A running process that serves HTTP, and a client for it without cookies."""

    def __init__(self, command, port=None, path=None, **environment):
        self.port = free_port() if port is None else port
        env = {k: v for k, v in os.environ.items() if not k.startswith(("STATEWAY_", "SHOP_"))}
        env.update(environment, PORT=str(self.port))
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        transport = None if path is None else httpx.HTTPTransport(uds=str(path))
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, transport=transport, timeout=20,
                                 trust_env=False)
        deadline = time.monotonic() + 15
        while True:
            try:
                self.http.get("/healthz")
                return
            except httpx.TransportError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError(f"{command} does not start") from None
                time.sleep(0.02)

    def client(self):
        """A visitor: a client with cookies of its own."""
        return httpx.Client(base_url=self.url, timeout=20, trust_env=False)

    def stop(self):
        self.http.close()
        if self.process.poll() is None:
            self.process.kill()
        return self.process.wait()


@pytest.fixture
def start():
    running = []

    def run(command, **options):
        program = command[0]
        if str(program).startswith(str(APPS)) and not os.access(program, os.X_OK):
            pytest.skip(f"{program} is not built")
        running.append(App([str(word) for word in command], **options))
        return running[-1]

    yield run
    for app in running:
        app.stop()


@pytest.fixture
def shop(start):
    return start([APPS / "shop"], SHOP_ALLOW_CRASH="1", STATEWAY_INSTANCE="shop/7")


@pytest.fixture
def counter(start):
    return start([APPS / "counter"])


def handed(state=None, **more):
    """The request headers of a gateway that keeps the state."""
    headers = {"Stateway-State-Info": "absent", "Stateway-Verdict": "fresh"}
    if state is not None:
        text = state if isinstance(state, str) else json.dumps(state, separators=(",", ":"))
        headers = {"Stateway-State-Info": f"inline;type=json;size={len(text)}",
                   "Stateway-State": text, "Stateway-Verdict": "kept"}
    return {**headers, **more}


UPDATES = ("stateway-set", "stateway-delete", "stateway-renew", "stateway-subject", "stateway-patch")


def updates(answer):
    return {name: answer.headers[name] for name in UPDATES if name in answer.headers}


# ---- the shop, with its own memory ----


def test_shop_remembers(shop):
    with shop.client() as visitor:
        first = visitor.post("/cart/items", data={"item": "tea"})
        assert first.status_code == 200
        cookie = first.headers["set-cookie"]
        assert re.fullmatch(r"shopid=[0-9a-f]{32}; Path=/; HttpOnly; SameSite=Lax", cookie)
        assert updates(first) == {}
        visitor.post("/cart/items?item=tea")
        answer = visitor.post("/cart/items", json={"item": "lamp"}).json()
        assert answer["source"] == "memory"
        assert answer["instance"] == "shop/7"
        assert answer["pid"] == shop.process.pid
        assert answer["verdict"] is None
        assert answer["user"] is None
        assert answer["orders"] == 0
        assert [(i["id"], i["quantity"]) for i in answer["cart"]["items"]] == [("tea", 2), ("lamp", 1)]
        assert answer["cart"]["count"] == 3
        assert answer["cart"]["total"] == "51.80"
        assert visitor.get("/cart").json()["cart"] == answer["cart"]
        assert visitor.delete("/cart/items/tea").json()["cart"]["count"] == 1
        assert visitor.delete("/cart/items/tea").status_code == 404
        done = visitor.post("/checkout").json()
        assert (done["orders"], done["cart"]["count"]) == (1, 0)
        assert visitor.post("/checkout").status_code == 409
    assert shop.http.get("/cart").json()["cart"]["count"] == 0  # another visitor


def test_shop_looking_makes_no_visitor(shop):
    answer = shop.http.get("/cart")
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers


def test_shop_login_renews_the_id(shop):
    with shop.client() as visitor:
        visitor.post("/cart/items?item=mug")
        before = visitor.cookies["shopid"]
        answer = visitor.post("/login", data={"user": "zoë"})
        assert answer.json()["user"] == "zoë"
        assert answer.json()["cart"]["count"] == 1
        assert visitor.cookies["shopid"] != before
        old = shop.http.get("/cart", headers={"Cookie": f"shopid={before}"}).json()
        assert (old["user"], old["cart"]["count"]) == (None, 0)
        known = visitor.cookies["shopid"]
        out = visitor.post("/logout")
        assert "Max-Age=0" in out.headers["set-cookie"]
        assert out.json()["user"] is None
        old = shop.http.get("/cart", headers={"Cookie": f"shopid={known}"}).json()
        assert (old["user"], old["cart"]["count"]) == (None, 0)


def test_shop_takes_over_an_id_but_no_nonsense(shop):
    known = "0123456789abcdef" * 2
    answer = shop.http.post("/cart/items?item=tea", headers={"Cookie": f"shopid={known}"})
    assert "set-cookie" not in answer.headers
    for bad in ("x", known.upper(), known + "0", "../../etc/passwd" * 2, "%00" * 11):
        answer = shop.http.post("/cart/items?item=tea", headers={"Cookie": f"shopid={bad}"})
        assert answer.json()["cart"]["count"] == 1
        assert "shopid=" in answer.headers["set-cookie"]


@pytest.mark.parametrize("prefix, path", [
    ({"X-Forwarded-Prefix": "/sticky"}, "/sticky"), ({"Shop-Mount": "/a/b/"}, "/a/b"),
    ({"Shop-Mount": "/"}, "/"), ({"Shop-Mount": "/x; Domain=example.com"}, "/"),
    ({"Shop-Mount": "x"}, "/"), ({"Shop-Mount": "/" + "x" * 99}, "/"),
    ({"X-Forwarded-Prefix": "/a", "Shop-Mount": "/b"}, "/a"),
])
def test_shop_cookie_path(shop, prefix, path):
    cookie = shop.http.post("/cart", headers=prefix).headers["set-cookie"]
    assert f"; Path={path};" in cookie


def test_shop_parallel_adds_are_exact(shop):
    with shop.client() as visitor:
        visitor.post("/cart")
        cookie = {"Cookie": f"shopid={visitor.cookies['shopid']}"}

    def add(_):
        with shop.client() as client:
            for _ in range(40):
                assert client.post("/cart/items?item=kite", headers=cookie).status_code == 200

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        list(pool.map(add, range(10)))
    assert shop.http.get("/cart", headers=cookie).json()["cart"]["count"] == 400


def test_shop_memory_is_bounded(shop):
    """The table holds 10 000 visitors: the one who was longest away goes first."""
    old = {"Cookie": "shopid=" + "a" * 32}
    shop.http.post("/cart/items?item=tea", headers=old)

    def visit(start):
        with shop.client() as client:
            for i in range(start, start + 2500):
                client.post("/cart", headers={"Cookie": f"shopid={i:032x}"})

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(visit, range(0, 10000, 2500)))
    assert shop.http.get("/cart", headers=old).json()["cart"]["count"] == 0
    assert shop.process.poll() is None


# ---- the shop, with a state that is handed over ----


def test_shop_handed_new_visitor(shop):
    answer = shop.http.post("/cart/items?item=coffee", headers=handed())
    assert answer.json()["source"] == "handed"
    assert answer.json()["verdict"] == "fresh"
    assert "set-cookie" not in answer.headers
    assert updates(answer) == {"stateway-set": '{"cart":{"coffee":1},"orders":0}'}


def test_shop_handed_keeps_nothing_itself(shop):
    state = {"cart": {"tea": 2}, "user": "ada", "orders": 4}
    answer = shop.http.post("/cart/items?item=tea", headers=handed(state, Cookie="shopid=" + "b" * 32))
    assert json.loads(answer.headers["stateway-set"]) == {
        "cart": {"tea": 3}, "user": "ada", "orders": 4}
    assert shop.http.get("/cart", headers=handed(state)).json()["cart"]["count"] == 2
    assert shop.http.get("/cart", headers=handed()).json()["cart"]["count"] == 0
    own = shop.http.get("/cart", headers={"Cookie": "shopid=" + "b" * 32})
    assert own.json()["cart"]["count"] == 0


def test_shop_handed_looking_changes_nothing(shop):
    for path in ("/cart", "/catalogue", "/slow?ms=0"):
        assert updates(shop.http.get(path, headers=handed({"cart": {"tea": 1}}))) == {}
        assert updates(shop.http.get(path, headers=handed())) == {}


def test_shop_handed_login_and_logout(shop):
    answer = shop.http.post("/login", data={"user": "Zoë & co €"}, headers=handed({"cart": {"mug": 1}}))
    assert answer.json()["user"] == "Zoë & co €"
    found = updates(answer)
    assert found["stateway-set"].isascii()
    assert json.loads(found["stateway-set"])["user"] == "Zoë & co €"
    assert found["stateway-renew"] == "?1"
    assert found["stateway-subject"] == "Zo%C3%AB%20%26%20co%20%E2%82%AC"
    answer = shop.http.post("/login?user=ada", headers=handed())
    assert updates(answer)["stateway-subject"] == "ada"
    answer = shop.http.post("/logout", headers=handed({"cart": {"mug": 1}, "user": "ada"}))
    assert updates(answer) == {"stateway-delete": "?1"}
    assert (answer.json()["user"], answer.json()["cart"]["count"]) == (None, 0)


def test_shop_handed_checkout(shop):
    answer = shop.http.post("/checkout", headers=handed({"cart": {"mug": 2}, "orders": 1}))
    assert json.loads(answer.headers["stateway-set"]) == {"cart": {}, "orders": 2}
    answer = shop.http.post("/checkout", headers=handed({"orders": 1}))
    assert answer.status_code == 409
    assert updates(answer) == {}


@pytest.mark.parametrize("state", [
    "", "{", "[]", "7", "null", '"tea"', ":e30=:", '{"cart":[]}', '{"cart":{"tea":-1}}',
    '{"cart":{"tea":"2"}}', '{"cart":{"tea":1.5}}', '{"cart":{"tea":99999999999999}}',
    '{"cart":{"tea":1},"cart":{}}', '{"user":7}', '{"user":""}', '{"user":"a\\u0007"}',
    '{"orders":-1}', '{"orders":"x"}', '{"user":"' + "x" * 65 + '"}', "[" * 5000,
])
def test_shop_leaves_a_foreign_state_alone(shop, state):
    for method, path in (("GET", "/cart"), ("POST", "/cart/items?item=tea"), ("POST", "/checkout")):
        answer = shop.http.request(method, path, headers={
            "Stateway-State-Info": "inline;type=json", "Stateway-State": state})
        assert answer.status_code == 500
        assert "error" in answer.json()
        assert updates(answer) == {}


def test_shop_leaves_a_state_alone_that_is_elsewhere(shop):
    answer = shop.http.post("/cart/items?item=tea", headers={"Stateway-State-Info": "ref"})
    assert answer.status_code == 500
    assert updates(answer) == {}


def test_shop_forgets_items_that_are_no_longer_sold(shop):
    answer = shop.http.get("/cart", headers=handed({"cart": {"fax": 1, "tea": 1}, "colour": "red"}))
    assert answer.json()["cart"]["count"] == 1


# ---- the shop: errors, and the rest ----


@pytest.mark.parametrize("method, path, status", [
    ("POST", "/cart/items", 400), ("POST", "/cart/items?item=", 404),
    ("POST", "/cart/items?item=gold", 404), ("POST", "/cart/items?item=" + "x" * 300, 400),
    ("DELETE", "/cart/items/gold", 404), ("DELETE", "/cart/items/", 404),
    ("DELETE", "/cart/items", 405), ("PUT", "/cart", 405), ("GET", "/login", 405),
    ("GET", "/crash", 405), ("POST", "/", 405), ("POST", "/login", 400),
    ("POST", "/login?user=", 400), ("POST", "/login?user=" + "x" * 65, 400),
    ("POST", "/login?user=%0d%0aSet-Cookie:x", 400), ("POST", "/login?user=%ff", 400),
    ("POST", "/login?user=%7f", 400), ("GET", "/nowhere", 404),
    ("GET", "/slow?ms=x", 400), ("GET", "/slow?ms=60001", 400), ("GET", "/slow?ms=-1", 400),
])
@pytest.mark.parametrize("headers", [{}, handed({"cart": {"tea": 1}})], ids=["memory", "handed"])
def test_shop_errors(shop, method, path, status, headers):
    answer = shop.http.request(method, path, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]
    assert answer.json()["pid"] == shop.process.pid
    assert updates(answer) == {}
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("content, kind", [
    (b"{", "application/json"), (b"[1]", "application/json"), (b'{"item":7}', "application/json"),
    (b"item=%zz", "application/x-www-form-urlencoded"), (b"item=%4", "application/x-www-form-urlencoded"),
    (b"item", "text/plain"), (b"items=tea", "application/x-www-form-urlencoded"),
    (b"\x00item=tea", "application/x-www-form-urlencoded"), (b"&&&=&", "x"),
])
def test_shop_bad_bodies(shop, content, kind):
    answer = shop.http.post("/cart/items", content=content, headers={"Content-Type": kind})
    assert answer.status_code == 400


def test_shop_body_too_large(shop):
    assert shop.http.post("/cart/items", content=b"x" * 8193).status_code == 413
    assert shop.http.post("/cart/items", content=b"item=tea&" + b"x" * 5_000_000).status_code == 413
    assert shop.http.post("/cart/items", content=b"item=tea&x=" + b"x" * 8181).status_code == 200


def test_shop_says_what_there_is(shop):
    listed = shop.http.get("/?json").json()["endpoints"]
    assert {"GET /cart", "POST /cart/items", "DELETE /cart/items/ID"} <= {
        f"{row['method']} {row['path']}" for row in listed}
    assert len(shop.http.get("/catalogue").json()["catalogue"]) == 8
    assert shop.http.get("/healthz").json()["status"] == "ok"
    head = shop.http.head("/cart")
    assert (head.status_code, head.content) == (200, b"")


def test_shop_names_the_instance_it_is_told(start):
    shop = start([APPS / "shop"])
    assert shop.http.get("/cart").json()["instance"] == "local"
    answer = shop.http.get("/cart", headers={"Stateway-Instance": "shop/2"})
    assert answer.json()["instance"] == "shop/2"


def test_shop_page(start):
    shop = start([APPS / "shop"], SHOP_MOUNTS="none=/none,session=/session/")
    answer = shop.http.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    data = re.search(r'id="data">(.*?)</script>', answer.text).group(1)
    assert json.loads(data)["mounts"] == [{"placement": "none", "base": "/none"},
                                          {"placement": "session", "base": "/session"}]
    assert json.loads(data)["crash"] is False
    assert not re.search(r'(src|href)="(?!data:)', answer.text), "something from elsewhere"


@pytest.mark.parametrize("arguments, environment", [
    (["--port", "x"], {}), (["--port", "65536"], {}), (["--port"], {}), (["--what"], {}),
    ([], {"PORT": "80x"}), ([], {"SHOP_MOUNTS": "none"}), ([], {"SHOP_MOUNTS": "none=</script>"}),
    ([], {"SHOP_MOUNTS": "=/x"}), (["--socket", "/" + "x" * 200], {}),
])
def test_shop_refuses_to_start(arguments, environment):
    if not os.access(APPS / "shop", os.X_OK):
        pytest.skip("the shop is not built")
    done = subprocess.run([APPS / "shop", *arguments], env={**os.environ, **environment},
                          capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 1
    assert done.stderr


def test_shop_crash(shop, start):
    with pytest.raises(httpx.TransportError):
        shop.http.post("/crash")
    assert shop.process.wait(5) == -signal.SIGKILL
    careful = start([APPS / "shop"])
    assert careful.http.post("/crash").status_code == 403


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_shop_finishes_what_it_has_begun(shop, number):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        running = [pool.submit(lambda: httpx.get(shop.url + "/slow?ms=3000", timeout=20))
                   for _ in range(4)]
        time.sleep(1.5)  # all four are begun, on a busy machine too
        shop.process.send_signal(number)
        time.sleep(0.2)
        with pytest.raises(httpx.TransportError):
            httpx.get(shop.url + "/cart", timeout=0.3)
        answers = [one.result() for one in running]
    assert [a.status_code for a in answers] == [200] * 4
    assert answers[0].headers["connection"] == "close"
    assert shop.process.wait(5) == 0


def test_shop_ends_at_once_when_idle(shop):
    with shop.client() as idle:
        idle.get("/cart")  # its connection stays open
        began = time.monotonic()
        shop.process.send_signal(signal.SIGTERM)
        assert shop.process.wait(5) == 0
        assert time.monotonic() - began < 2


def test_shop_on_a_unix_socket(start, tmp_path):
    path = tmp_path / "shop.sock"
    shop = start([APPS / "shop", "--socket", path], path=path)
    assert shop.http.get("/cart").status_code == 200
    shop.process.kill()
    shop.process.wait()
    assert path.exists()
    again = start([APPS / "shop", "--socket", path], path=path)  # in the place of the killed one
    again.process.send_signal(signal.SIGTERM)
    assert again.process.wait(5) == 0
    assert not path.exists()
    path.write_text("somebody's data")
    with pytest.raises(AssertionError):
        start([APPS / "shop", "--socket", path], path=path)
    assert path.read_text() == "somebody's data"


# ---- the counter ----


def test_counter_remembers(counter):
    assert [counter.http.get("/").text for _ in range(3)] == ["1\n", "2\n", "3\n"]
    assert counter.http.post("/", content=b"x").text == "4\n"
    assert counter.http.get("/read").text == "4\n"
    assert counter.http.get("/healthz").text == "ok\n"
    assert counter.http.get("/else").status_code == 404
    assert counter.http.post("/read").status_code == 405


def test_counter_parallel(counter):
    def add(_):
        with counter.client() as client:
            return [int(client.get("/").text) for _ in range(50)]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        seen = sorted(n for part in pool.map(add, range(8)) for n in part)
    assert seen == list(range(1, 401))


@pytest.mark.parametrize("state", ["{}", '{"n":"1"}', '{"n":1.5}', "[]", "x", "", '{"n":9223372036854775807}'])
def test_counter_leaves_a_foreign_state_alone(counter, state):
    answer = counter.http.get("/", headers={"Stateway-State-Info": "inline", "Stateway-State": state})
    assert answer.status_code == 500
    assert updates(answer) == {}


def test_counter_ends(counter):
    counter.process.send_signal(signal.SIGTERM)
    assert counter.process.wait(5) == 0


# ---- the same counter in every language ----


def flask_installed():
    return subprocess.run([PYTHON, "-c", "import flask"], capture_output=True,
                          check=False).returncode == 0


def counter_command(which, port):
    """The command line of one counter; skips when what it needs is not installed."""
    if which == "c":
        return [APPS / "counter"]
    if which == "flask" and not flask_installed():
        pytest.skip("flask is not installed")
    program, *arguments = {
        "node": ["node", EXAMPLES / "counter.mjs"],
        "python": [PYTHON, EXAMPLES / "counter.py"],
        "flask": [PYTHON, EXAMPLES / "counter_flask.py"],
        "php": ["php", "-S", f"127.0.0.1:{port}", EXAMPLES / "counter.php"],
    }[which]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    return [program, *arguments]


@pytest.mark.parametrize("which", ["c", "node", "python", "flask", "php"])
def test_counter_handed(start, which):
    port = free_port()
    app = start(counter_command(which, port), port=port)
    first = app.http.get("/", headers=handed())
    assert (first.text.strip(), json.loads(first.headers["stateway-set"])) == ("1", {"n": 1})
    state = first.headers["stateway-set"]
    for method in ("GET", "POST"):
        answer = app.http.request(method, "/", headers=handed(state))
        assert (answer.text.strip(), json.loads(answer.headers["stateway-set"])) == ("2", {"n": 2})
    read = app.http.get("/read", headers=handed({"n": 41}))
    assert read.text.strip() == "41"
    assert updates(read) == {}
    assert app.http.get("/", headers=handed()).text.strip() == "1"  # nothing stayed behind


@pytest.mark.parametrize("which", ["node", "python", "flask", "php"])
def test_counter_update_is_ascii(start, which):
    port = free_port()
    app = start(counter_command(which, port), port=port)
    answer = app.http.get("/", headers=handed({"n": 1, "name": "Zoë €"}))
    assert answer.headers["stateway-set"].isascii()
    assert json.loads(answer.headers["stateway-set"]) == {"n": 2, "name": "Zoë €"}


# ---- the demo page, in a browser, without a gateway ----


@pytest.mark.skipif(not browser.available(), reason="chromium and chromedriver are not installed")
def test_page_without_a_gateway(shop):
    column = "section[data-placement=directly] "
    with browser.Browser() as page:
        page.open(shop.url)
        assert page.wait_text(column + "[data-role=instance]", "shop/7")
        page.click(column + "[data-action=add]")
        assert page.wait_text(column + "[data-role=count]", "1")
        page.click(column + "[data-action=add-ten]")
        assert page.wait_text(column + "[data-role=note]", "10 of 10 kept")
        assert page.wait_text(column + "[data-role=count]", "11")
        page.click(column + "[data-action=login]")
        assert page.wait_text(column + "[data-role=user]", "ada")
        page.reload()
        assert page.wait_text(column + "[data-role=count]", "11")
        page.click(column + "[data-action=logout]")
        assert page.wait_text(column + "[data-role=count]", "0")
        assert not page.find("[data-action=roll]").visible()
        for width in (1280, 390):
            page.size(width, 800)
            wide = page.run("return document.documentElement.scrollWidth")
            assert wide <= width
        # The missing admin API is the only thing the browser has to say.
        assert [m for m in page.console() if "/control/" not in m["message"]] == []
