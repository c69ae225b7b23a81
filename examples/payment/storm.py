"""Shoppers who never give up, while everything under them is killed. Was anybody charged twice?

    python3 storm.py [--payments 100] [--seconds-between-kills 0.3] [--config stateway.yaml] [--forgets]

Starts the bank and stateway (STATEWAY names the binary, else it is looked up in PATH) in a folder of
its own. Every request is sent until it is answered for good, at times twice at once; each has one
Idempotency-Key. At the end the bank's accounts are held against what the shoppers were told.
"""
import argparse
import collections
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
count = collections.Counter()
lock = threading.Lock()


def tally(name, n=1):
    with lock:
        count[name] += n


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ask(port, method, path, body=None, headers=()):
    """(status, headers, body), or None: no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.headers, json.loads(answer.read() or b"{}")
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


class Shopper:
    def __init__(self, gateway):
        self.gateway = gateway

    def step(self, payment, name, order):
        """Until it is answered for good: (status, body); status None: the outcome is unknown."""
        key = {"Idempotency-Key": str(uuid.uuid4()), "Authorization": "Bearer shop",
               "Content-Type": "application/json"}
        tally("requests")
        while True:
            if random.random() < 0.1:  # an impatient one: both at once
                tally("sent")
                threading.Thread(target=ask, daemon=True,
                                 args=(self.gateway, "POST", f"/payments/{payment}/{name}", json.dumps(order),
                                       key)).start()
            tally("sent")
            got = ask(self.gateway, "POST", f"/payments/{payment}/{name}", json.dumps(order), key)
            if got and got[1].get("Idempotent-Replayed"):
                tally("replayed")
            if got and got[0] == 409 and got[2].get("state") == "unknown":
                return None, got[2]
            running = got and got[0] == 409 and got[1].get("Stateway-Error") == "idempotency-running"
            if got and got[0] < 500 and not running:
                return got[0], got[2]
            time.sleep(random.uniform(0.02, 0.1))

    def buy(self, payment):
        """What it was told, step by step; ends at the first outcome that nobody knows."""
        amount = random.randrange(1000, 9000)
        told = {"charged": 0, "given": 0, "unknown": None}
        for name, order in [("capture", {}),  # too early: refused
                            ("authorize", {"amount": amount}), ("capture", {"amount": amount - 100}),
                            ("refund", {"amount": 300}), ("refund", {"amount": 200})]:
            early = name == "capture" and "amount" not in order
            status, body = self.step(payment, name, order)
            if status is None:
                told["unknown"] = name
                break
            assert status == (409 if early else 200), (payment, name, order, status, body)
            if name == "capture" and not early:
                told["charged"] = amount - 100
            if name == "refund":
                told["given"] += order["amount"]
        return told


class Killer(threading.Thread):
    """SIGKILL: mostly an instance, at times the gateway process."""

    def __init__(self, supervisor, pause):
        super().__init__(daemon=True)
        self.supervisor, self.pause, self.over = supervisor, pause, threading.Event()

    def children(self, what):
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if parent == self.supervisor and what.encode() in words[1:3]:
                found.append(int(entry.name))
        return found

    def run(self):
        while not self.over.wait(random.uniform(0.5, 1.5) * self.pause):
            what = random.choice(["app.py", "app.py", "app.py", "gateway"])
            for pid in random.sample(self.children(what), min(1, len(self.children(what)))):
                try:
                    os.kill(pid, signal.SIGKILL)
                    tally("instances killed" if what == "app.py" else "gateways killed")
                except ProcessLookupError:
                    pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--payments", type=int, default=100)
    parser.add_argument("--shoppers", type=int, default=10)
    parser.add_argument("--seconds-between-kills", type=float, default=0.3)
    parser.add_argument("--config", default="stateway.yaml")
    parser.add_argument("--forgets", action="store_true", help="a bank that knows no Idempotency-Key")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="payment-"))
    gateway, bank = free_port(), free_port()
    shutil.copy(HERE / "app.py", folder)
    text = (HERE / args.config).read_text().replace("127.0.0.1:8080", f"127.0.0.1:{gateway}")
    (folder / "stateway.yaml").write_text(text + "\nadmin: off\nlog: { access: off }\n")
    processes = [subprocess.Popen([sys.executable, HERE / "bank.py", "--port", str(bank), "--file",
                                   folder / "bank.jsonl"] +
                                  (["--forgets"] if args.forgets else []))]
    log = open(folder / "stateway.log", "wb")
    processes.append(subprocess.Popen([os.environ.get("STATEWAY", "stateway"), "run", "-c", "stateway.yaml"],
                                      cwd=folder,
                                      env={**os.environ, "BANK": f"127.0.0.1:{bank}"}, stdout=log, stderr=log))
    ok = False
    try:
        deadline = time.monotonic() + 30
        while (got := ask(gateway, "GET", "/payments/none")) is None or got[0] != 404:
            assert time.monotonic() < deadline and processes[1].poll() is None, (folder / "stateway.log").read_text()
            time.sleep(0.1)
        ok = storm(args, gateway, bank, processes[1].pid)
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()
        log.close()
        if ok:
            shutil.rmtree(folder)
        else:
            print("what is left is in", folder)
    return 0 if ok else 1


def storm(args, gateway, bank, supervisor):
    payments, told, wrong = [f"p{n}" for n in range(args.payments)], {}, []
    todo, began = iter(payments), time.monotonic()

    def shop():
        shopper = Shopper(gateway)
        while True:
            with lock:
                payment = next(todo, None)
            if payment is None:
                return
            try:
                told[payment] = shopper.buy(payment)
            except AssertionError as e:
                wrong.append(str(e))

    killer = Killer(supervisor, args.seconds_between_kills)
    killer.start()
    shoppers = [threading.Thread(target=shop) for _ in range(args.shoppers)]
    for thread in shoppers:
        thread.start()
    for thread in shoppers:
        thread.join()
    killer.over.set()
    killer.join()
    took = time.monotonic() - began
    time.sleep(1)  # the doubles of impatient shoppers

    done = collections.Counter()
    for payment in payments:
        says = told.get(payment)
        if says is None:
            continue
        account = (ask(bank, "GET", f"/account/{payment}") or (0, 0, {}))[2]
        taken, given, charges = (account.get(name, 0) for name in ("taken", "given", "charges"))
        state = None
        while state is None or state[0] >= 500:
            state = ask(gateway, "GET", f"/payments/{payment}")
        if says["unknown"]:
            done["unknown"] += 1
            # It was done once or not at all; and what was told for certain is true.
            sure = (says["charged"], says["given"])
            may = {"authorize": [(0, 0)], "capture": [sure, (account.get("taken", 0), 0)] if charges <= 1 else [],
                   "refund": [sure, (sure[0], sure[1] + (300 if sure[1] == 0 else 200))]}[says["unknown"]]
            if (taken, given) not in may or charges > 1:
                wrong.append(f"{payment}: told {says}, the bank has {account}")
            done["done after all"] += (taken, given) != sure
            continue
        if (taken, given, charges) != (says["charged"], says["given"], 1):
            wrong.append(f"{payment}: told {says}, the bank has {account}")
        if (state[2].get("captured"), state[2].get("refunded")) != (taken, given):
            wrong.append(f"{payment}: the state is {state[2]}, the bank has {account}")
    audit = ask(bank, "GET", "/audit")[2]
    print(f"{len(payments)} payments in {took:.1f} s: {count['requests']} requests, sent {count['sent']} times")
    print(f"killed: {count['instances killed']} times an instance, {count['gateways killed']} times the gateway")
    print(f"answered from the record: {count['replayed']}; outcome unknown: {done['unknown']}"
          + (f" (of which {done['done after all']} were done)" if done["unknown"] else ""))
    print(f"the bank: {audit['calls']} calls, {audit['repeated']} of them repeated; {audit['charges']} charges")
    print(f"wrong: {len(wrong)}" + "".join(f"\n  {line}" for line in wrong[:10]))
    return not wrong


if __name__ == "__main__":
    sys.exit(main())
