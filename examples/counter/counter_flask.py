"""A counter that remembers nothing: Stateway-State comes in, Stateway-Set goes out."""
import json
import os

from flask import Flask, Response, request

app = Flask(__name__)


@app.route("/", methods=["GET", "POST"])
@app.route("/read")
def count():
    state = json.loads(request.headers.get("Stateway-State", '{"n":0}'))
    if request.path != "/":
        return f"{state['n']}\n"
    state["n"] += 1
    return Response(f"{state['n']}\n", headers={"Stateway-Set": json.dumps(state)})


app.run("127.0.0.1", int(os.environ.get("PORT", 3000)))
