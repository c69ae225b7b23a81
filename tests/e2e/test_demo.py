"""`stateway demo` in a real browser: what the page shows of each placement, and that it leaves nothing behind."""
import re
import signal
from pathlib import Path

import pytest

import browser
from harness import Gateway, SHOP, free_port, wait_for

pytestmark = [
    pytest.mark.skipif(not browser.available(), reason="chromium and chromedriver are not installed"),
    pytest.mark.skipif(not SHOP.exists(), reason="the shop is not built (libmicrohttpd, jansson)"),
]


PLACEMENTS = ("none", "token", "sealed", "session", "sticky")


@pytest.fixture(scope="module")
def demo():
    """One demo for all tests here; each opens it with a profile of its own."""
    listen, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    g = Gateway(args=["demo", "--listen", listen, "--admin", admin, "--workers", 2])
    g.config = {"listen": [{"address": listen}], "admin": {"address": admin}}
    try:
        g.wait_ready()
        yield g
    except BaseException:
        g.discard()
        raise
    g.close()


@pytest.fixture
def page(demo):
    with browser.Browser() as one:
        one.open(demo.url)
        for placement in PLACEMENTS:
            assert one.wait_text(f"section[data-placement={placement}] [data-role=instance]", "shop/")
        yield one
        assert [m for m in one.console() if m["level"] in ("SEVERE", "WARNING")] == []


class Column:
    def __init__(self, page, placement):
        self.page, self.css = page, f"section[data-placement={placement}] "

    def role(self, name):
        return self.page.text(f"{self.css}[data-role={name}]")

    def mood(self, name):
        return self.page.find(f"{self.css}[data-role={name}]").attribute("data-mood")

    def click(self, action):
        """Clicks, and waits until the column is no longer busy."""
        button = self.page.find(f"{self.css}[data-action={action}]")
        assert self.page.wait(button.enabled)
        button.click()
        assert self.page.wait(lambda: self.page.run(
            "return !document.querySelector(arguments[0]).disabled", self.css + "[data-action=add]"))

    def count(self):
        return int(self.role("count"))


def test_adding(page):
    for placement, verdict in (("none", "none"), ("token", "updated"), ("sealed", "updated"), ("session", "updated"),
                               ("sticky", "kept")):
        column = Column(page, placement)
        column.click("add")
        column.click("add")
        assert column.role("verdict") == verdict
        if placement != "none":
            assert column.count() == 2


def test_ten_in_parallel(page):
    for placement in ("session", "sticky"):
        column = Column(page, placement)
        column.click("add")
        column.click("add-ten")
        assert page.wait_text(column.css + "[data-role=note]", "10 of 10 kept")
        assert column.count() == 11
        page.reload()
        assert page.wait_text(column.css + "[data-role=count]", "11")


def test_killing_the_instance(page, demo):
    session, sticky = Column(page, "session"), Column(page, "sticky")
    carried = [Column(page, "token"), Column(page, "sealed")]
    session.click("add-ten")
    sticky.click("add-ten")
    for column in carried:
        column.click("add")
        column.click("add")
    assert (session.count(), sticky.count()) == (10, 10)
    killed = session.role("instance")
    session.click("kill")
    assert page.wait(lambda: "still here: 10 items" in session.role("note"))
    assert session.mood("note") == "good"
    assert session.count() == 10
    for column in carried:
        assert page.wait(lambda: "still here: 2 items" in column.role("note"))
    # Now the one that holds the sticky cart, if it was not that one already.
    if sticky.count() == 10:
        assert sticky.role("instance") != killed
        sticky.click("kill")
    assert page.wait(lambda: sticky.role("note").startswith("Cart lost: the instance that held it died. 10 items are gone"))
    assert sticky.mood("note") == "bad"
    assert sticky.role("verdict") == "lost"
    assert sticky.mood("verdict") == "bad"
    assert sticky.count() == 0
    assert session.count() == 10
    wait_for(lambda: [i["state"] for i in demo.apps()["shop"]] == ["healthy"] * 3)
    sticky.click("add")
    assert (sticky.count(), sticky.role("verdict")) == (1, "kept")


def test_what_the_browser_carries(page):
    """A token can be read by anybody, a sealed cookie by nobody, an id says nothing."""
    for placement in ("token", "sealed", "session", "sticky"):
        Column(page, placement).click("add")
    held = {c["name"]: c for c in page.cookies()}
    assert set(held) >= {"cart-token", "cart-sealed", "sid", "pin-shop"}
    assert all(held[name]["httpOnly"] for name in ("cart-token", "cart-sealed", "sid", "pin-shop"))

    def carried(placement, text):
        css = f"section[data-placement={placement}] [data-role=carried]"
        assert page.wait_text(css, text), page.text(css)
        return page.text(css)

    token = carried("token", '"state"')
    assert '"iss": "https://shop.example"' in token and '"cart"' in token and "signed:" in token
    sealed = carried("sealed", "only the gateway can open")
    assert '"enc": "A256GCM"' in sealed and "cart\"" not in sealed
    assert "random id" in carried("session", "random id")
    assert "pin" in carried("sticky", "pin")
    for name in ("token", "sealed", "session", "sticky"):
        assert re.fullmatch(r"\d+ bytes", Column(page, name).role("carried-size"))
    assert held["sid"]["value"] not in page.text("main")


@pytest.mark.parametrize("placement,cookie", [("session", "sid"), ("token", "cart-token"), ("sealed", "cart-sealed")])
def test_login_and_logout(page, placement, cookie):
    column = Column(page, placement)
    column.click("add")
    before = {c["value"] for c in page.cookies() if c["name"] == cookie}
    column.click("login")
    assert page.wait_text(column.css + "[data-role=user]", "logged in as ada")
    after = {c["value"] for c in page.cookies() if c["name"] == cookie}
    assert len(after) == 1 and after != before, "a new id at login"
    assert all(c["httpOnly"] for c in page.cookies())
    assert column.count() == 1
    page.reload()
    assert page.wait_text(column.css + "[data-role=user]", "logged in as ada")
    column.click("logout")
    assert page.wait_text(column.css + "[data-role=user]", "not logged in")
    assert column.count() == 0
    assert not any(c["name"] == cookie for c in page.cookies())


def test_restart_all_one_by_one(page, demo):
    columns = {name: Column(page, name) for name in PLACEMENTS}
    for name in ("sticky", "session", "token", "sealed"):
        columns[name].click("add-ten" if name in ("sticky", "session") else "add")
    before = {i["incarnation"] for i in demo.apps()["shop"]}
    button = page.find("[data-action=roll]")
    assert page.wait(button.enabled)
    button.click()
    assert page.wait_text("[data-role=roll-note]", "All 3 were restarted.", 60), page.text("[data-role=roll-note]")
    told = page.text("[data-role=roll-note]")
    assert "session: kept" in told
    assert "sticky: lost 10 items" in told
    assert not {i["incarnation"] for i in demo.apps()["shop"]} & before
    assert columns["session"].count() == 10
    for name in ("session", "token", "sealed"):
        assert columns[name].role("stats").endswith("so far"), "neither losses nor jumps"
    listed = page.text("[data-role=instances]")
    assert re.findall(r"shop/[123]", listed) == ["shop/1", "shop/2", "shop/3"]


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_everything(gateway, signo):
    listen, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    folders = set(Path("/tmp").glob("stateway-demo-*"))
    g = gateway(args=["demo", "--listen", listen, "--admin", admin])
    g.config = {"listen": [{"address": listen}], "admin": {"address": admin}}
    mine = set(Path("/tmp").glob("stateway-demo-*")) - folders
    assert len(mine) >= 1
    mine = {folder for folder in mine if str(folder) in g.log() or len(mine) == 1} or mine
    assert f"http://{listen}/" in g.out.read_text()
    cookies = {}
    assert g.post("/session/cart/items?item=tea", cookies=cookies).status == 200
    assert "sid" in cookies
    assert g.stop(signo) == 0
    g.check()
    assert not any(folder.exists() for folder in mine)
