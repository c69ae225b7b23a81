#!/usr/bin/env python3
"""The journal beside LMDB and RocksDB: synced puts, gets, and how fast it is read at start.

One process, slices in turns (bench/stores.c); ratios are medians of paired rounds. First on the disk
(--folder, /var/tmp), where a synced put waits for the disk and the CPU a put is what a store can do
about it; then in /dev/shm if that is a tmpfs, where a sync costs nothing and only the store is left.
Replay: beside reading the same files, and reading them with CRC-32C on one core; with files that the
kernel has forgotten, and with files it has in memory.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from speeds import ratio, show

ROOT = pathlib.Path(__file__).resolve().parent.parent
# quick or not: sessions, rounds, milliseconds of a slice
DISK = {True: (100_000, 2, 200), False: (1_000_000, 3, 400)}
MEMORY = {True: (50_000, 2, 100), False: (250_000, 3, 200)}
REPLAY = {True: (100_000, 1), False: (1_000_000, 2)}  # sessions, rounds
BYTES = 8000  # of disk a session, at most, while all stores are there
REPLAY_GOAL = 1.25  # times what limits it


def call(build, *argv):
    out = subprocess.run([str(build / "bench" / "stores"), *map(str, argv)], capture_output=True,
                         text=True)
    if out.returncode != 0:
        raise SystemExit(out.stderr or f"stores ended with {out.returncode}")
    return json.loads(out.stdout)


def kind_of(folder):
    """The type of the file system that holds a folder."""
    out = subprocess.run(["df", "--output=fstype", str(folder)], capture_output=True,
                         text=True)
    return (out.stdout.split() or ["?"])[-1]


def room(folder, sessions):
    st = os.statvfs(folder)
    return st.f_bavail * st.f_frsize > sessions * BYTES


def mid(values, digits=0):
    value = statistics.median(values)
    return f"{value:,.{digits}f}"


def compare(build, folder, sizes, where, with_goals):
    with tempfile.TemporaryDirectory(prefix="stateway-stores-", dir=folder) as work:
        data = call(build, "compare", work, *sizes)
    stores = {s["store"]: s for s in data["stores"]}
    journal = stores["journal"]

    def times(other, what, field="per_s"):
        return ratio(journal[what][field], stores[other][what][field])

    rows = []
    for name, s in stores.items():
        row = [name]
        for what in ("puts_16", "puts_256"):
            row += [mid(s[what]["per_s"]), mid(s[what]["cpu_us"], 1), mid(s[what]["batch"]),
                    f"{times(name, what):.1f}x"]
        rows.append([*row, mid(s["reads"]["per_s"]), f"{times(name, 'reads'):.1f}x"])
    goals = []
    if with_goals:
        wanted = [("bare lmdb", "puts_16", 10), ("bare lmdb", "puts_256", 30)]
        wanted += [(p, w, 2) for p in ("rocksdb",) for w in ("puts_16", "puts_256") if p in stores]
        wanted += [("bare lmdb", "reads", 3)]
        for other, what, goal in wanted:
            value = times(other, what)
            text = f"journal's {what.replace('puts_', 'synced puts, batch ')} a second, to {other}"
            goals.append({"what": text, "goal": f">= {goal}x", "value": f"{value:.1f}x",
                          "reached": value >= goal})
    cpu = ", ".join(f"{1 / times('bare lmdb', w, 'cpu_us'):.1f}x at {w[5:]}" for w in ("puts_16", "puts_256"))
    notes = [
        f"{data['sessions']:,} sessions of {data['value_bytes']} bytes that cannot be compressed; {where}.",
        "Batch: puts under way. Of journal and lmdb each is a commit of its own with version, expiry and"
        " check, and the store groups them (puts a sync); the others get them as one batch, and look"
        " at nothing.",
        f"CPU is that of the whole process. Bare LMDB takes that many times the journal's: {cpu}.",
    ]
    if "rocksdb" not in stores:
        notes.append("RocksDB is missing: built without librocksdb-dev.")
    return {
        "title": f"Stores: synced puts and gets, {where}",
        "columns": ["store", "puts/s at 16", "CPU us", "puts a sync", "journal is", "puts/s at 256",
                    "CPU us", "puts a sync", "journal is", "gets/s", "journal is"],
        "rows": rows, "goals": goals, "notes": notes,
    }


def replay(build, folder, sessions, rounds):
    with tempfile.TemporaryDirectory(prefix="stateway-stores-", dir=folder) as work:
        call(build, "fill", f"{work}/journal", sessions)
        data = call(build, "replay", f"{work}/journal", rounds)
    rows, goals = [], []
    for cold in (True, False):
        passes = [p for p in data["passes"] if p["cold"] == cold]
        if not passes:
            continue
        read, crc, opened, cpu = ([p[k] for p in passes] for k in ("read_s", "sum_s", "open_s", "open_cpu_s"))
        value = ratio(opened, crc)
        rows.append(["forgotten by the kernel" if cold else "in the page cache", mid(read, 2), mid(crc, 2),
                     mid(opened, 2), f"{value:.2f}x", mid(cpu, 2),
                     f"{data['sessions'] / statistics.median(opened):,.0f}",
                     f"{data['bytes'] / statistics.median(opened) / 1e6:,.0f}"])
        if cold:
            goals.append({"what": "replay, to reading the files from the disk with CRC-32C",
                          "goal": f"<= {REPLAY_GOAL}x", "value": f"{value:.2f}x",
                          "reached": value <= REPLAY_GOAL})
    return {
        "title": f"Journal: replay of {data['sessions']:,} sessions at start (s)",
        "columns": ["files", "read", "read and CRC", "replay", "to read and CRC", "CPU s", "sessions/s", "MB/s"],
        "rows": rows, "goals": goals,
        "notes": [
            f"{data['bytes'] / 1e6:,.0f} MB of log. In memory a session of 512 bytes takes"
            f" {data['memory_bytes'] / data['sessions']:,.0f} bytes.",
            f"{data['cores']} cores: one thread reads and checks, helpers bring records into the table.",
        ],
    }


def run(quick: bool, build: pathlib.Path, folder: pathlib.Path = pathlib.Path("/var/tmp"),
        sessions: int | None = None) -> list[dict]:
    shm = pathlib.Path("/dev/shm")
    size, again = DISK[quick], REPLAY[quick]
    if sessions:
        again = (sessions, again[1])
    tables = [compare(build, folder, size, f"on {kind_of(folder)}", True)]
    if quick:
        tables[0]["notes"].append("The goals are for a million sessions: a small tree of LMDB shares its"
                                  " pages among the puts of a batch, and is read from the caches.")
    if kind_of(shm) == "tmpfs" and room(shm, MEMORY[quick][0]):
        tables.append(compare(build, shm, MEMORY[quick], "on tmpfs: a sync costs nothing", False))
    tables.append(replay(build, folder, *again))
    return tables


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("/var/tmp"), help="on a disk")
    parser.add_argument("--sessions", type=int, help="to replay; about 0.7 kB each of disk and of memory")
    parser.add_argument("--quick", action="store_true", help="under 15 s")
    args = parser.parse_args()
    return 0 if show(run(args.quick, args.build, args.folder, args.sessions)) else 1


if __name__ == "__main__":
    sys.exit(main())
