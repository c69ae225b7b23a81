#!/usr/bin/python3
"""An app of registers for the tests of races: it remembers nothing, and tells in each answer what it was handed.

    GET|POST /ANYTHING?op=OP&token=T[&value=N][&expect=T][&member=M][&think=MS]

    read    answers what there is                 add     n + 1
    put     n becomes value                       swap    the same if the token of the state is `expect`
    end     the state is removed                  patch   member + 1, as a merge patch of that member alone
    guard   the same with Stateway-Expect         mark    a state with a mark: a login
    keep    n + 1, all else is kept, as a Set     renew   the same with a new id for the visitor

The state is {"n": number, "token": of the last write, "trail": the last eight tokens}; the answer
{"before": the state or null, "version", "verdict", "done": whether an update went out}. With `think` the app
waits that long between its reading and its writing. One thread; HTTP/1.1 as the gateway speaks it.
"""
import asyncio
import json
import os
import sys
from urllib.parse import parse_qsl

TRAIL = 8


def after(op, asked, before):
    """The header that asks for the update, or None."""
    state = before or {}
    token = asked.get("token", "")
    written = {"n": state.get("n", 0) + 1, "token": token, "trail": (state.get("trail", []) + [token])[-TRAIL:]}
    if op in ("put", "swap"):
        written["n"] = int(asked["value"])
    if op in ("add", "put") or op == "swap" and state.get("token") == asked["expect"]:
        return "Stateway-Set", written
    if op in ("patch", "guard"):
        return "Stateway-Patch", {asked["member"]: state.get(asked["member"], 0) + 1}
    if op == "mark":
        return "Stateway-Set", {"n": 0, "mark": token}
    if op in ("keep", "renew"):
        return "Stateway-Set", {**state, "n": state.get("n", 0) + 1}
    return None


def field(head, name):
    """A header as the gateway writes it; None: there is none."""
    at = head.find(b"\r\n" + name + b": ")
    return None if at < 0 else head[at + len(name) + 4:head.index(b"\r\n", at + 2)].decode()


class App(asyncio.Protocol):
    """One connection of the gateway."""

    def __init__(self):
        self.buffer, self.transport = b"", None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end + 2]
            length = end + 4 + int(field(head, b"Content-Length") or 0)
            if len(self.buffer) < length:
                return
            self.buffer = self.buffer[length:]
            target = head.split(b" ", 2)[1].decode()
            asked = dict(parse_qsl(target.partition("?")[2]))
            if "think" in asked:
                asyncio.get_running_loop().call_later(int(asked["think"]) / 1000, self.answer, head, asked)
            else:
                self.answer(head, asked)

    def answer(self, head, asked):
        op, text = asked.get("op", "read"), field(head, b"Stateway-State")
        before, version = json.loads(text) if text else None, field(head, b"Stateway-Version")
        update, extra = after(op, asked, before), ""
        if update:
            extra = f"{update[0]}: {json.dumps(update[1])}\r\n"
        if op == "end":
            extra = "Stateway-Delete: ?1\r\n"
        if op == "guard":
            extra += f"Stateway-Expect: {version}\r\n"
        if op == "renew":
            extra += "Stateway-Renew: ?1\r\n"
        body = json.dumps({"before": before, "version": version, "verdict": field(head, b"Stateway-Verdict"),
                           "done": extra != ""})
        if not self.transport.is_closing():
            self.transport.write(f"HTTP/1.1 200 OK\r\n{extra}Content-Length: {len(body)}\r\n\r\n{body}".encode())


async def main():
    server = await asyncio.get_running_loop().create_server(App, "127.0.0.1", int(os.environ["PORT"]), backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(0)
