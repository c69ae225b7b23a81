"""An origin whose answers are bytes that a test writes, and gateways shared by the tests of a module.

    stage.on("/hello", lambda asked, raw: answer(200, b"hello"))

A path nobody wrote an act for answers with JSON of what was asked: method, target, headers, trailers, and the
body's length and hash.
"""
import hashlib
import itertools
import json

from harness import Answer, Gateway, Origin, Raw, answer


def read_body(asked, raw):
    """Reads the request's body into asked.body and asked.trailers, and checks its framing."""
    framed = Answer(b"", "", 200, "", asked.headers)
    asked.trailers = []
    if framed.get("content-length") is not None or framed.get("transfer-encoding") is not None:
        raw.read_body(framed)
        asked.body, asked.trailers = framed.body, framed.trailers
    return asked.body


def told(asked):
    """What was understood, for an answer in JSON."""
    return {"method": asked.method, "target": asked.target, "headers": asked.headers,
            "trailers": asked.trailers, "length": len(asked.body),
            "sha256": hashlib.sha256(asked.body).hexdigest()}


def understood(asked, raw):
    read_body(asked, raw)
    return answer(200, json.dumps(told(asked)), {"Content-Type": "application/json"})


class Stage(Origin):
    """on(path, act): act gets the request, its body unread, and the connection; returns bytes to send."""

    def __init__(self):
        self.acts = {}
        self.names = itertools.count(1)
        super().__init__(self._act, read_body=False)

    def _act(self, asked, raw):
        return self.acts.get(asked.target.split("?")[0], understood)(asked, raw)

    def on(self, act, path=None):
        """The path, a new one unless given, on which the act is played."""
        path = path or f"/act/{next(self.names)}"
        self.acts[path] = act
        return path

    def says(self, data, read=True, close=False):
        """A path that answers with these bytes."""
        def act(asked, raw):
            if read:
                read_body(asked, raw)
            if data:
                raw.send(data)
            if close:
                raise EOFError
        return self.on(act)

    def asked_for(self, path):
        with self.lock:
            return [a for a in self.asked if a.target.split("?")[0] == path]


class Services:
    """One gateway an engine, for all tests of a module: services(engine)."""

    def __init__(self, config):
        self.config, self.running = config, {}

    def __call__(self, engine):
        if engine not in self.running:
            one = self.running[engine] = Gateway(self.config(engine), engine=engine, log_level="info", ready=False)
            one.wait_log("a/1 is healthy", 30)  # /readyz asks for every app; one may be down by intention
            one.family()
        return self.running[engine]

    def close(self):
        first = None
        for gateway in self.running.values():
            try:
                gateway.close()
            except AssertionError as e:
                first = first or e
        if first:
            raise first


def memory(pid):
    """Resident bytes of a process that are its own (not of files)."""
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def raw_answer(service, data, method="GET", **options):
    """Sends bytes on a connection of its own and reads one answer."""
    with Raw(service.address, **options) as raw:
        return raw.send(data).read(method)
