"""A pretend bank: counts what was really charged, and does nothing twice.

    python3 bank.py [--port 9000] [--file bank.jsonl] [--slow 0.05] [--forgets]

POST /hold      {"account", "amount"}   sets money aside
POST /take      {"account", "amount"}   takes of what is set aside: a charge
POST /give      {"account", "amount"}   gives back of what was taken
POST /release   {"account"}             sets free what is set aside and was not taken
GET  /account/NAME                      the sums of one
GET  /audit                             of all: calls, repeated calls, charges, sums

Every POST names itself by Idempotency-Key. The bank writes down key and outcome in one line of its
file before it answers, and a key it knows is answered from there: that is what makes it safe to ask
again after an answer got lost. With --forgets it is a bank as many are: each call is a new one.
"""
import argparse
import json
import os
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Bank:
    def __init__(self, file, forgets):
        self.forgets = forgets
        self.lock, self.accounts, self.done = threading.Lock(), {}, {}
        self.calls = self.repeated = 0
        if os.path.exists(file):
            for line in open(file, encoding="ascii"):
                entry = json.loads(line)
                self.done[entry["key"]] = entry
                if entry["status"] == 200:
                    self.accounts[entry["account"]] = entry["sums"]
        self.file = open(file, "a", encoding="ascii")

    def do(self, what, key, account, amount):
        """(status, answer). The same key: the same answer, whatever happened since."""
        with self.lock:
            self.calls += 1
            if key in self.done and not self.forgets:
                self.repeated += 1
                known = self.done[key]
                if (known["what"], known["account"], known["amount"]) != (what, account, amount):
                    return 422, {"error": "this Idempotency-Key belongs to another call"}
                return known["status"], known["answer"]
            sums = dict(self.accounts.get(account, {"held": 0, "taken": 0, "given": 0, "charges": 0}))
            error = self.move(what, sums, amount)
            status = 409 if error else 200
            answer = {"error": error, **self.accounts.get(account, {})} if error else sums
            self.done[key] = {"key": key, "what": what, "account": account, "amount": amount, "status": status,
                              "answer": answer, "sums": sums}
            self.file.write(json.dumps(self.done[key]) + "\n")
            self.file.flush()
            os.fsync(self.file.fileno())
            if not error:
                self.accounts[account] = sums
            return status, answer

    @staticmethod
    def move(what, sums, amount):
        """Changes the sums, or says why not."""
        if what == "hold":
            if sums["held"] or sums["taken"]:
                return "there is an authorization already"
            sums["held"] = amount
        elif what == "take":
            if amount > sums["held"]:
                return "that much is not set aside"
            sums["held"] -= amount
            sums["taken"] += amount
            sums["charges"] += 1
        elif what == "give":
            if sums["given"] + amount > sums["taken"]:
                return "that much was not taken"
            sums["given"] += amount
        elif what == "release":
            sums["held"] = 0
        else:
            return "no such call"
        return None


class Desk(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        bank, (what, *rest) = self.server.bank, self.path.strip("/").split("/")
        with bank.lock:
            if what == "audit":
                sums = bank.accounts.values()
                self.answer(200, {"calls": bank.calls, "repeated": bank.repeated,
                                  **{name: sum(s[name] for s in sums) for name in ("charges", "held", "taken",
                                          "given")}})
            elif what == "account" and rest and rest[0] in bank.accounts:
                self.answer(200, bank.accounts[rest[0]])
            else:
                self.answer(404, {"error": "no such account"})

    def do_POST(self):
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(random.random() * self.server.slow)  # now the app may die: nothing was done
        status, answer = self.server.bank.do(self.path.strip("/"), self.headers["Idempotency-Key"],
                                             call["account"], call.get("amount", 0))
        time.sleep(random.random() * self.server.slow)  # or now: it was done, and nobody hears of it
        self.answer(status, answer)

    def answer(self, status, body):
        data = json.dumps(body).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass  # who called has died: the outcome stands in the file


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--file", default="bank.jsonl")
    parser.add_argument("--slow", type=float, default=0.05, help="seconds, at most, before and after the work")
    parser.add_argument("--forgets", action="store_true", help="know no keys")
    args = parser.parse_args()
    server = Server(("127.0.0.1", args.port), Desk)
    server.bank, server.slow = Bank(args.file, args.forgets), args.slow
    server.serve_forever()
