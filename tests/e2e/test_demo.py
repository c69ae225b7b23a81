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
        for placement in ("none", "sticky", "session"):
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
    for placement, verdict in (("none", "none"), ("sticky", "kept"), ("session", "updated")):
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
    session.click("add-ten")
    sticky.click("add-ten")
    assert (session.count(), sticky.count()) == (10, 10)
    killed = session.role("instance")
    session.click("kill")
    assert page.wait(lambda: "still here: 10 items" in session.role("note"))
    assert session.mood("note") == "good"
    assert session.count() == 10
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


def test_login_and_logout(page):
    column = Column(page, "session")
    column.click("add")
    before = {c["value"] for c in page.cookies() if c["name"] == "sid"}
    column.click("login")
    assert page.wait_text(column.css + "[data-role=user]", "logged in as ada")
    after = {c["value"] for c in page.cookies() if c["name"] == "sid"}
    assert len(after) == 1 and after != before, "a new id at login"
    assert all(c["httpOnly"] for c in page.cookies())
    assert column.count() == 1
    page.reload()
    assert page.wait_text(column.css + "[data-role=user]", "logged in as ada")
    column.click("logout")
    assert page.wait_text(column.css + "[data-role=user]", "not logged in")
    assert column.count() == 0
    assert not any(c["name"] == "sid" for c in page.cookies())


def test_restart_all_one_by_one(page, demo):
    columns = {name: Column(page, name) for name in ("none", "sticky", "session")}
    for name in ("sticky", "session"):
        columns[name].click("add-ten")
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
    assert columns["session"].role("stats").endswith("so far")  # neither losses nor jumps
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
