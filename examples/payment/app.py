"""Payments in several steps: authorize -> capture -> refund, each at most once, whoever dies meanwhile.

The app keeps nothing and knows no database. A payment's state comes in Stateway-State and goes back in
Stateway-Set; the gateway runs one request of a payment at a time and makes state and Idempotency-Key
durable together. What is left to the app is three lines of care:

1. It passes the Idempotency-Key on to the bank. If it dies behind the bank's work and before its own
   answer, the same request comes again (`unknown: retry`), asks the bank with the same key, and the
   bank does nothing twice.
2. It believes the bank: sums come from the bank's answer, not from its own arithmetic.
3. It says what it knows. 422: never, kept and repeated like a success. 409: not now, the key stays free.
   503 with `Stateway-Idempotency: release`: the bank was not even reached, the key is free. 504: the bank
   did not answer, nobody knows.
"""
import json
import os
import socket
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BANK = os.environ.get("BANK", "127.0.0.1:9000")
VOID_AFTER_MS = int(os.environ.get("VOID_AFTER_MS", "60000"))


class Refused(Exception):
    """An answer that is no success: status, text, headers."""

    def __init__(self, status, error, headers=()):
        super().__init__(error)
        self.status, self.error, self.headers = status, error, headers


def bank(what, key, account, amount=0):
    """The sums after it. key: who asks twice with the same one gets the same answer."""
    connection = HTTPConnection(BANK, timeout=5)
    try:
        connection.connect()
    except OSError as e:
        raise Refused(503, "the bank is closed; nothing was done",
                      [("Stateway-Idempotency", "release"), ("Retry-After", "1")]) from e
    try:
        connection.request("POST", "/" + what, json.dumps({"account": account, "amount": amount}),
                           {"Idempotency-Key": key})
        answer = connection.getresponse()
        sums = json.loads(answer.read())
    except (OSError, HTTPException, ValueError) as e:
        raise Refused(504, "the bank did not answer; it may have done it") from e
    finally:
        connection.close()
    if answer.status != 200:
        raise Refused(409, sums["error"])
    return sums


def money(order, name="amount"):
    amount = order.get(name)
    if type(amount) is not int or not 0 < amount <= 100_000_00:
        raise Refused(422, f"{name} is a number of cents, above 0")
    return amount


# ---- the steps: (payment, state or None, order, key) -> new state, alarm or None ----


def authorize(payment, state, order, key):
    if state is not None:
        raise Refused(409, f"this payment is {state['status']}")
    amount = money(order)
    bank("hold", key, payment, amount)
    return ({"status": "authorized", "amount": amount, "captured": 0, "refunded": 0},
            f"in={VOID_AFTER_MS};id=void")


def capture(payment, state, order, key):
    if state is None:
        raise Refused(409, "authorize it first")
    if state["status"] != "authorized":
        raise Refused(409, f"this payment is {state['status']}")
    amount = money({"amount": state["amount"], **order})
    if amount > state["amount"]:
        raise Refused(422, "that is more than was authorized")
    sums = bank("take", key, payment, amount)
    return {**state, "status": "captured", "captured": sums["taken"]}, "cancel;id=void"


def refund(payment, state, order, key):
    if state is None or state["status"] not in ("captured", "refunded"):
        raise Refused(409, "nothing was captured")
    left = state["captured"] - state["refunded"]
    if left == 0:
        raise Refused(409, "all of it was refunded")
    amount = money({"amount": left, **order})
    if amount > left:
        raise Refused(422, f"{left} are left to refund")
    sums = bank("give", key, payment, amount)
    return {**state, "status": "refunded" if sums["given"] == sums["taken"] else "captured",
            "refunded": sums["given"]}, None


def void(payment, state, order, key):
    if state is None or state["status"] != "authorized":
        raise Refused(409, f"this payment is {state['status'] if state else 'unknown'}")
    return voided(state, bank("release", key, payment)), "cancel;id=void"


def voided(state, sums):
    """What is left when nothing is set aside any more. A capture whose answer got lost is one all the same."""
    if sums["taken"]:
        return {**state, "status": "captured", "captured": sums["taken"]}
    return {**state, "status": "voided"}


STEPS = {"authorize": authorize, "capture": capture, "refund": refund, "void": void}


class Payments(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/healthz":
            self.answer(200, {})
            return
        state = self.state()
        self.answer(200 if state else 404, state or {"error": "no such payment"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            if self.path == "/alarms":
                self.timeout_of_authorization()
                return
            _, payments, payment, name = self.path.split("/")
            order = json.loads(body or b"{}")
            if payments != "payments" or name not in STEPS:
                raise Refused(404, "no such step")
            if not isinstance(order, dict):
                raise Refused(422, "an order is a JSON object")
            # Of this merchant, this payment and this step: nobody else's key is the same.
            who = self.headers.get("Authorization", "")
            key = f"{who}/{payment}/{name}/{self.headers['Idempotency-Key'].strip(chr(34))}"
            state, alarm = STEPS[name](payment, self.state(), order, key)
            self.answer(200, state, [("Stateway-Set", json.dumps(state))] +
                        ([("Stateway-Alarm", alarm)] if alarm else []))
        except Refused as e:
            self.answer(e.status, {"error": e.error}, e.headers)
        except ValueError:
            self.answer(400, {"error": "not understood"})

    def timeout_of_authorization(self):
        """The gateway delivers this at least once, with the state as it is then, alone on this payment."""
        state, payment = self.state(), self.headers["Stateway-Key"].partition(":")[2]
        if state is None or state["status"] != "authorized":
            self.answer(200, {})
            return
        state = voided(state, bank("release", f"timeout/{payment}", payment))
        self.answer(200, state, [("Stateway-Set", json.dumps(state))])

    def state(self):
        return json.loads(self.headers.get("Stateway-State", "null"))

    def answer(self, status, body, headers=()):
        data = json.dumps(body).encode() + b"\n"
        self.send_response(status)
        for name, value in [("Content-Type", "application/json"), ("Content-Length", str(len(data))), *headers]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().server_bind()


if __name__ == "__main__":
    Server(("127.0.0.1", int(os.environ.get("PORT", 3000))), Payments).serve_forever()
