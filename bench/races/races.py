"""The races: how many updates are lost, and what it takes to lose none. script/races runs this.

    counts   200 clients send 500 requests each that add one to one of 10 keys: 100,000 in all. Then the keys
             are read. Against stateway in each of its modes, and against the session layers of express and PHP.
             And how long a fast request of a session waits behind one that takes a second.
    history  clients work on registers while instances and the gateway process are killed at random; a check
             looks for one order that explains every answer (tests/e2e/history.py)
    logout   10,000 sessions with 100 slow requests each are ended in the middle; none may come back

Writes bench/races/result.json, the tables of docs/guarantees.md and docs/sessions.md, and docs/images/races.svg.
Ends with 1 when stateway broke a promise.
"""
import argparse
import asyncio
import dataclasses
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import subjects
from subjects import HERE, CannotRun, Stateway

import harness
import history
import test_races

ROOT = HERE.parents[1]
RESULT, PICTURE = HERE / "result.json", ROOT / "docs" / "images" / "races.svg"
GUARANTEES, SESSIONS = ROOT / "docs" / "guarantees.md", ROOT / "docs" / "sessions.md"
KEYS, SLOW_MS, WAITS = 10, 1000, 5
ROUND_S = 10  # of a history: each round has keys of its own, so that its check stays small


def say(text):
    print(text, flush=True)


# ---- counts ----


def compile_load(folder):
    binary = Path(folder) / "load"
    subprocess.run([os.environ.get("CC", "cc"), "-std=gnu17", "-O2", "-D_GNU_SOURCE", "-o", binary, HERE / "load.c"],
                   check=True)
    return binary


def run_load(binary, subject, clients, requests):
    given = b"".join(b"%d\n%s" % (len(text), text) for client in range(clients) for key in range(KEYS)
                     for text in [subject.request(client, key)])
    done = subprocess.run([binary, str(subject.port), str(clients), str(KEYS), str(requests), "1"], input=given,
                          capture_output=True, check=False)
    if done.returncode != 0:
        raise CannotRun(f"the load gave up: {done.stderr.decode().strip()}")
    return json.loads(done.stdout)


def waits_behind(subject, method):
    """Milliseconds that a fast request takes which is sent 100 ms after a slow POST of the same session: the median."""
    took = []
    for _ in range(WAITS):
        slow = threading.Thread(target=subject.ask, args=("POST", 0, SLOW_MS))
        slow.start()
        time.sleep(0.1)
        began = time.monotonic()
        answer = subject.ask(method, 0)
        took.append((time.monotonic() - began) * 1000)
        slow.join()
        if answer is None:
            raise CannotRun(f"{method} behind a slow request was not answered")
    return round(statistics.median(took), 1)


def count(subject, binary, clients, requests):
    """A row of the table."""
    with tempfile.TemporaryDirectory(prefix="stateway-races-") as folder:
        try:
            subject.start(folder, KEYS)
            before = [0] * KEYS if isinstance(subject, Stateway) else [subject.count(key) for key in range(KEYS)]
            row = {"name": subject.name, "note": subject.note, "expected": clients * requests}
            row.update(run_load(binary, subject, clients, requests))
            row["counted_of"] = [subject.count(key) - before[key] for key in range(KEYS)]
            row["counted"] = sum(row["counted_of"])
            row["lost"] = row["acknowledged"] - row["counted"]
            row["per_second"] = round(row["acknowledged"] / row["seconds"])
            row.update(subject.figures())
            row["get_waits_ms"], row["post_waits_ms"] = waits_behind(subject, "GET"), waits_behind(subject, "POST")
            row["versions"] = subject.versions()
            return row
        finally:
            subject.stop()


def run_counts(args, result):
    """Whether stateway lost nothing where it promises that."""
    rows, not_run, right = [], [], True
    with tempfile.TemporaryDirectory(prefix="stateway-races-") as folder:
        binary = compile_load(folder)
        for subject in subjects.subjects():
            if args.rows and not re.search(args.rows, subject.name):
                continue
            try:
                row = count(subject, binary, args.clients, args.requests)
            except CannotRun as e:
                not_run.append({"name": subject.name, "why": str(e)})
                say(f"counts: {subject.name}: NOT RUN: {e}")
                continue
            rows.append(row)
            say(f"counts: {row['name']}: {row['acknowledged']} answered, {row['counted']} counted, {row['lost']} lost, "
                f"{row['failed']} failed, {row['refused']} refused and sent again, {row['per_second']}/s, "
                f"p50 {row['p50_ms']} p99 {row['p99_ms']} max {row['max_ms']} ms, "
                f"GET waits {row['get_waits_ms']} ms, POST {row['post_waits_ms']} ms")
            if subject.promised:
                right = right and row["counted_of"] == [args.clients * args.requests // KEYS] * KEYS
    result["counts"] = {"clients": args.clients, "requests": args.requests, "keys": KEYS, "rows": rows,
                        "not_run": not_run}
    return right


# ---- histories ----


def run_history(args, result):
    rows, right = [], True
    for engine in harness.engines():
        if engine == "uring" and not harness.has_uring():
            say("history: uring: NOT RUN: the kernel refuses io_uring here")
            continue
        row = {"engine": engine, "seconds": 0, "operations": 0, "unanswered": 0, "refused": 0, "instance_kills": 0,
               "gateway_kills": 0, "keys": 0, "complaints": []}
        with harness.Gateway(test_races.history_config(), engine=engine, log_level="info") as g:
            while row["seconds"] < args.history_s:
                seconds = min(args.history_s - row["seconds"], ROUND_S)
                ops, killed = test_races.record(g, seconds, name=f"r{row['keys']}")
                verdict = history.check(ops)
                row["seconds"] += seconds
                row["operations"] += verdict.ops
                row["unanswered"] += verdict.unknown
                row["refused"] += sum(verdict.failed.values())
                row["keys"] += len({op.key for op in ops})
                for name, number in killed.items():
                    row[name] += number
                if verdict.complaint:
                    row["complaints"].append(verdict.complaint[:4000])
                    say(f"history: {engine}: BROKEN: {verdict.complaint[:4000]}")
        say(f"history: {engine}: " +
            ", ".join(f"{k} {v}" for k, v in row.items() if k not in ("engine", "complaints")) +
            f", {'BROKEN' if row['complaints'] else 'linearizable'}")
        rows.append(row)
        right = right and not row["complaints"]
    result["history"] = rows
    return right


# ---- logouts ----


def run_logout(args, result):
    with harness.Gateway(test_races.logout_config(), log_level="info") as g:
        began = time.monotonic()
        seen = asyncio.run(test_races.logouts(g.address, args.logouts, at_once=24))
        took = round(time.monotonic() - began, 1)
    rows = [{"mode": mode, **dataclasses.asdict(one), "broken": len(one.broken), "complaints": one.broken[:10]}
            for mode, one in seen.items()]
    for row in rows:
        say("logout: " + ", ".join(f"{k} {v}" for k, v in row.items() if k != "complaints"))
        for line in row["complaints"]:
            say(f"logout: BROKEN: {line}")
    result["logout"] = {"writers": test_races.WRITERS, "seconds": took, "rows": rows}
    return not any(row["broken"] for row in rows)


# ---- what is written ----


def machine():
    def of(path, pattern):
        found = re.search(pattern, Path(path).read_text())
        return found.group(1).strip() if found else "?"
    folder = tempfile.gettempdir()
    return {"date": datetime.date.today().isoformat(), "cpu": of("/proc/cpuinfo", r"model name\s*:\s*(.*)"),
            "cores": os.cpu_count(), "memory_gib": round(int(of("/proc/meminfo", r"MemTotal:\s*(\d+)")) / 2**20),
            "kernel": ".".join(platform.release().split("-")[0].split(".")[:2]),
            "file_system": subprocess.run(["df", "--output=fstype", folder], capture_output=True, text=True,
                                          check=False).stdout.split()[-1]}


def number(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def counts_table(counts):
    lines = ["| | answered | counted | **lost** | refused, sent again | requests/s | p50 ms | p99 ms | max ms "
             "| GET waits ms | POST waits ms |", "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"]
    for row in counts["rows"]:
        figures = ("refused", "per_second", "p50_ms", "p99_ms", "max_ms", "get_waits_ms", "post_waits_ms")
        lines.append(f"| {row['name']} | {row['acknowledged']:,} | {row['counted']:,} | **{row['lost']:,}** | " +
                     " | ".join(number(row[k]) for k in figures) + " |")
    lines.append("")
    lines += [f"* {row['name']}: {row['note']}" +
              (f"; {row['run_again']:,} requests were run again" if row.get("run_again") else "") +
              (f"; **{row['failed']:,} requests got no answer or an error**" if row["failed"] else "") + "."
              for row in counts["rows"]]
    lines += [f"* Could not be run: {row['name']}: {row['why']}." for row in counts["not_run"]]
    versions = {k: v for row in counts["rows"] for k, v in row["versions"].items()}
    lines.append("* Versions: " + ", ".join(f"{k} {v}" for k, v in versions.items()) + ".")
    return lines


def history_table(rows):
    lines = ["| engine | seconds | operations | no answer | refused | keys | instances killed | gateways killed "
             "| order found for |", "|---|--:|--:|--:|--:|--:|--:|--:|---|"]
    figures = ("seconds", "operations", "unanswered", "refused", "keys", "instance_kills", "gateway_kills")
    for row in rows:
        lines.append(f"| {row['engine']} | " + " | ".join(f"{row[k]:,.0f}" for k in figures) +
                     f" | {'**NOT every key**' if row['complaints'] else 'every key'} |")
    return lines


def logout_table(logout):
    lines = ["| mode | sessions ended | answered before | answered after | refused | logouts sent again | came back |",
             "|---|--:|--:|--:|--:|--:|--:|"]
    for row in logout["rows"]:
        lines.append(f"| `{row['mode']}` | " +
                     " | ".join(f"{row[k]:,}" for k in ("trials", "before", "late", "refused", "again")) +
                     f" | **{row['broken']:,}** |")
    return lines


def modes_table(counts):
    """Of the same rows what somebody wants to know who chooses a mode."""
    lines = ["| 200 clients, 10 keys, each request adds one | answered | lost | requests/s | p99 ms "
             "| a GET waits behind a slow writer | a POST waits |", "|---|--:|--:|--:|--:|--:|--:|"]
    for row in counts["rows"]:
        waits = (f"{number(row[k])} ms" for k in ("get_waits_ms", "post_waits_ms"))
        lines.append(f"| {row['name']} | {row['acknowledged']:,} | **{row['lost']:,}** | {number(row['per_second'])} | "
                     f"{number(row['p99_ms'])} | " + " | ".join(waits) + " |")
    return lines + ["", "What stands behind each row, and how to run it yourself: "
                    "[guarantees.md](guarantees.md#no-update-is-lost)."]


def killed_table(rows):
    """What a client is told when what it spoke to is killed."""
    total = {k: sum(row[k] for row in rows)
             for k in ("operations", "unanswered", "refused", "instance_kills", "gateway_kills", "seconds")}
    wrong = sum(bool(row["complaints"]) for row in rows)
    return ["| requests while instances and gateways are killed | |", "|---|--:|",
            f"| sent, in {total['seconds']:,.0f} s | {total['operations']:,} |",
            f"| instances killed, gateways killed | {total['instance_kills']:,}, {total['gateway_kills']:,} |",
            "| no answer: whether they were done only the state tells; with a key, the key "
            f"| {total['unanswered']:,} |",
            f"| refused by the gateway: none of them was done | {total['refused']:,} |",
            f"| answered with success, and not there or not in order | **{'none' if not wrong else 'SOME'}** |"]


def machine_lines(about):
    return [f"{about['cores']} cores ({about['cpu']}), {about['memory_gib']} GiB, Linux {about['kernel']}, "
            f"{about['file_system']}; {about['date']}. Load, gateway, apps and stores share these cores."]


def picture(counts):
    """Bars: how many of the answered updates are there, and how many are lost."""
    rows, wide, high = counts["rows"], 460, 26
    height = 44 + high * len(rows)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 {height}" '
           'font-family="sans-serif" font-size="13">',
           f'<rect width="900" height="{height}" fill="#ffffff"/>',
           f'<text x="12" y="22" font-size="15" fill="#1f2933">Of {rows[0]["expected"]:,} answered updates: '
           'kept (blue), lost (red)</text>' if rows else ""]
    for i, row in enumerate(rows):
        top, kept = 36 + high * i, max(0.0, min(1.0, row["counted"] / max(row["acknowledged"], 1)))
        name = row["name"].replace("`", "")
        out.append(f'<text x="308" y="{top + 15}" text-anchor="end" fill="#1f2933">{name}</text>')
        for left, width, color in ((318, wide * kept, "#2f6fab"), (318 + wide * kept, wide * (1 - kept), "#c8453b")):
            out.append(f'<rect x="{left:.1f}" y="{top + 3}" width="{width:.1f}" height="16" fill="{color}"/>')
        out.append(f'<text x="{326 + wide}" y="{top + 15}" fill="#1f2933">{row["lost"]:,} lost</text>')
    return "\n".join(out + ["</svg>"]) + "\n"


def fill(page, text, marker, lines):
    """What stands between the two comments of that marker is made anew."""
    begin, end = f"<!-- races: {marker} -->", f"<!-- races: end of {marker} -->"
    head, found, rest = text.partition(begin)
    _, ended, tail = rest.partition(end)
    if not found or not ended:
        raise SystemExit(f"races: {page} has no place for {marker}")
    return head + begin + "\n" + "\n".join(lines) + "\n" + end + tail


def write(result):
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    made = {GUARANTEES: {"machine": ("machine", machine_lines), "counts": ("counts", counts_table),
                         "history": ("history", history_table), "logout": ("logout", logout_table)},
            SESSIONS: {"modes": ("counts", modes_table), "killed": ("history", killed_table)}}
    for page, tables in made.items():
        text = page.read_text()
        for marker, (part, table) in tables.items():
            if part in result:
                text = fill(page, text, marker, table(result[part]))
        page.write_text(text)
    if "counts" in result:
        PICTURE.write_text(picture(result["counts"]))


PARTS = {"counts": run_counts, "history": run_history, "logout": run_logout}


def main():
    parser = argparse.ArgumentParser(prog="script/races", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[[], *PARTS], help="default: all three")
    parser.add_argument("--quick", action="store_true", help="a twentieth of everything, nothing is written")
    parser.add_argument("--long", type=float, metavar="MINUTES", help="only the history, that long on each engine")
    parser.add_argument("--rows", metavar="PATTERN", help="of counts only those rows; nothing is written")
    parser.add_argument("--no-write", action="store_true", help="only print")
    parser.add_argument("--tables", action="store_true", help="measure nothing: only write the tables anew")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--requests", type=int, default=500, help="of each client; a multiple of 10")
    parser.add_argument("--logouts", type=int, default=10000)
    parser.add_argument("--history-s", type=float, default=60, help="on each engine")
    args = parser.parse_args()
    parts = args.part or list(PARTS)
    if args.requests % KEYS:
        parser.error("--requests must be a multiple of 10")
    if args.long is not None:
        parts, args.history_s = ["history"], args.long * 60
    if args.quick:
        args.requests, args.logouts, args.history_s = 20, 500, 5
    if args.tables:
        write(json.loads(RESULT.read_text()))
        return 0
    if not harness.BINARY.exists():
        parser.error(f"{harness.BINARY} is not built; script/bootstrap --release")
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    result["machine"] = machine()
    right = [PARTS[part](args, result) for part in parts]
    if not (args.quick or args.rows or args.no_write):
        write(result)
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
