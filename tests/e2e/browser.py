"""A real browser for tests: a small WebDriver client over chromedriver's HTTP interface.

    with Browser(width=1280, height=800, dark=True) as browser:
        browser.open("http://127.0.0.1:8080/")
        browser.click("section[data-placement=session] [data-action=add]")
        assert browser.wait_text("section[data-placement=session] [data-role=count]", "1")

Each Browser is a chromedriver and a Chromium of its own, with an empty profile that is removed with it;
nothing it starts outlives close(). No Selenium: the interface is a dozen requests with JSON bodies.
"""
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import httpx

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
CHROMEDRIVER = os.environ.get("CHROMEDRIVER", "/usr/bin/chromedriver")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's id (WebDriver, 12.3)
ARGUMENTS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb",
]


def available():
    """Whether there is a browser to test with."""
    return os.access(CHROMIUM, os.X_OK) and os.access(CHROMEDRIVER, os.X_OK)


class BrowserError(Exception):
    """What WebDriver answered instead of a value."""

    def __init__(self, kind, message):
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Element:
    def __init__(self, browser, ident):
        self.browser = browser
        self.ident = ident

    def _ask(self, method, path, body=None):
        return self.browser.ask(method, f"/element/{self.ident}{path}", body)

    def click(self):
        self._ask("POST", "/click", {})

    def clear(self):
        self._ask("POST", "/clear", {})

    def type(self, text):
        self._ask("POST", "/value", {"text": text})

    def text(self):
        """As a person sees it: hidden text is not in it."""
        return self._ask("GET", "/text")

    def attribute(self, name):
        return self._ask("GET", f"/attribute/{name}")

    def enabled(self):
        return self._ask("GET", "/enabled")

    def visible(self):
        return self._ask("GET", "/displayed")

    def screenshot(self, path):
        with open(path, "wb") as out:
            out.write(base64.b64decode(self._ask("GET", "/screenshot")))


class Browser:
    def __init__(self, width=1280, height=800, dark=False, insecure=False, arguments=()):
        """insecure: accept any certificate. arguments: more of Chromium's command line."""
        self.profile = tempfile.mkdtemp(prefix="browser-")
        self.driver = None
        self.session = None
        self.http = None
        try:
            self._start(width, height, dark, insecure, list(arguments))
        except BaseException:
            self.close()
            raise

    def _start(self, width, height, dark, insecure, arguments):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        # A process group of its own: Chromium's many processes are in it, and end with it.
        self.driver = subprocess.Popen(
            [CHROMEDRIVER, f"--port={port}"], start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)
        deadline = time.monotonic() + 20
        while True:
            try:
                if self.http.get("/status").json()["value"]["ready"]:
                    break
            except httpx.TransportError:
                pass
            if self.driver.poll() is not None or time.monotonic() > deadline:
                raise BrowserError("chromedriver", "does not start")
            time.sleep(0.05)
        options = {
            "binary": CHROMIUM,
            "args": ARGUMENTS + [f"--user-data-dir={self.profile}",
                                 f"--window-size={width},{height}"] + arguments,
        }
        answer = self._request("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "acceptInsecureCerts": insecure, "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"}}}})
        self.session = answer["sessionId"]
        self.size(width, height)
        self.dark(dark)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.session is not None:
            try:
                self._request("DELETE", f"/session/{self.session}")
            except (BrowserError, httpx.HTTPError):
                pass
            self.session = None
        if self.http is not None:
            self.http.close()
        if self.driver is not None:
            self.driver.terminate()
            try:
                self.driver.wait(5)
            except subprocess.TimeoutExpired:
                pass
            try:
                os.killpg(self.driver.pid, signal.SIGKILL)  # what is left of the group
            except ProcessLookupError:
                pass
            self.driver.wait()
            self.driver = None
        shutil.rmtree(self.profile, ignore_errors=True)

    def _request(self, method, path, body=None):
        answer = self.http.request(method, path, content=None if body is None else json.dumps(body))
        value = answer.json().get("value")
        if isinstance(value, dict) and "error" in value and answer.status_code >= 400:
            raise BrowserError(value["error"], value.get("message", "").splitlines()[0])
        return value

    def ask(self, method, path, body=None):
        """A request within the session; for what has no method of its own here."""
        return self._request(method, f"/session/{self.session}{path}", body)

    def devtools(self, command, **parameters):
        return self.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def size(self, width, height):
        """The size of the page itself; also below the smallest window."""
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height,
                      deviceScaleFactor=1, mobile=False)

    def dark(self, on=True):
        self.devtools("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if on else "light"}])

    def open(self, url):
        self.ask("POST", "/url", {"url": url})

    def reload(self):
        self.ask("POST", "/refresh", {})

    def url(self):
        return self.ask("GET", "/url")

    def title(self):
        return self.ask("GET", "/title")

    def find(self, css):
        return Element(self, self.ask("POST", "/element",
                                      {"using": "css selector", "value": css})[ELEMENT])

    def find_all(self, css):
        found = self.ask("POST", "/elements", {"using": "css selector", "value": css})
        return [Element(self, one[ELEMENT]) for one in found]

    def click(self, css):
        self.find(css).click()

    def text(self, css):
        return self.find(css).text()

    def wait(self, condition, timeout_s=10.0):
        """Until condition() is true; answers what it answered, or None in the end."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                value = condition()
                if value:
                    return value
            except BrowserError as error:
                if error.kind not in ("no such element", "stale element reference"):
                    raise
            if time.monotonic() > deadline:
                return None
            time.sleep(0.05)

    def wait_text(self, css, text, timeout_s=10.0):
        """Until the element's text is, or has in it, the given one."""
        return self.wait(lambda: text in self.text(css), timeout_s)

    def run(self, script, *arguments):
        """JavaScript; its `return` is the answer. `arguments` are JSON."""
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def run_async(self, script, *arguments):
        """The same, for a script that calls arguments[arguments.length - 1] when it is done."""
        return self.ask("POST", "/execute/async", {"script": script, "args": list(arguments)})

    def cookies(self):
        """Also those that are HttpOnly."""
        return self.ask("GET", "/cookie")

    def console(self):
        """What the page has written to the console since the last call: list of {level, message}."""
        return self.ask("POST", "/se/log", {"type": "browser"})

    def screenshot(self, path, full=False):
        """A PNG of the window; full: of the whole page, however long."""
        image = (self.devtools("Page.captureScreenshot", captureBeyondViewport=True)["data"]
                 if full else self.ask("GET", "/screenshot"))
        with open(path, "wb") as out:
            out.write(base64.b64decode(image))
