"""An app that answers as the request's body says (test_real_apps.py); ordinary Flask."""
import json
import os
import signal
import time
import urllib.error
import urllib.request

from flask import Flask, Response, request

app = Flask(__name__)


def call(method, url, headers=None, body="", query=""):
    if "Stateway-Trace" in (headers or {}):
        headers["Stateway-Trace"] = request.headers["Stateway-Trace"]
    asked = urllib.request.Request(url + query, body.encode() if body else None, headers or {}, method=method)
    try:
        got = urllib.request.urlopen(asked)
    except urllib.error.HTTPError as e:
        got = e
    with got:
        return {"status": got.status, "etag": got.headers.get("ETag"), "error": got.headers.get("Stateway-Error"),
                "body": got.read().decode()}


@app.route("/", methods=["GET", "POST"])
@app.route("/<path:path>", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
def act(path=""):
    ask = json.loads(request.get_data() or b"{}")
    calls = [call(**{"url": request.headers.get("Stateway-Ref", ""), **c}) for c in ask.get("calls", [])]
    time.sleep(ask.get("sleep", 0))
    if ask.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    seen = {name.lower(): value for name, value in request.headers if name.lower().startswith("stateway-")}
    body = ask.get("body", json.dumps({"seen": seen, "calls": calls, "method": request.method, "path": "/" + path}))
    answer = Response(body, ask.get("status", 200))
    for name, value in ask.get("headers", []):
        if name.lower() == "content-type":
            del answer.headers["Content-Type"]
        answer.headers.add(name, value)
    return answer


app.run("127.0.0.1", int(os.environ["PORT"]), threaded=True)
