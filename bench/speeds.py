#!/usr/bin/env python3
"""How fast our cryptography is beside bare OpenSSL: verification for each algorithm, a token that was
seen before, a sealed state there and back. One process, slices in turns (bench/speeds.c); ratios are
medians of paired rounds. Beside it, in a process of its own, what `openssl speed` says.
"""
import argparse
import json
import pathlib
import re
import shutil
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROUNDS = {True: (9, 12), False: (25, 22)}  # quick or not: rounds, milliseconds of a slice
# as `openssl speed` names what verifies each; its fields: sign, verify
OPENSSL = {"RS256": "rsa2048", "ES256": "ecdsap256", "ES384": "ecdsap384", "ES512": "ecdsap521",
           "EdDSA": "ed25519"}
QUICK = ("RS256", "ES256", "EdDSA")


def openssl_speed(algs):
    """Nanoseconds of one verification, by our name; empty when there is no openssl."""
    if not shutil.which("openssl"):
        return {}
    out = subprocess.run(["openssl", "speed", "-mr", "-seconds", "1", *(OPENSSL[a] for a in algs)],
                         capture_output=True, text=True, check=True).stdout
    found = {}
    # +F2:0:2048:<signatures a second>:<verifications a second>; F4: ECDSA, F6: EdDSA. Some versions of
    # OpenSSL print seconds, which are below one.
    for kind, bits, verify in re.findall(r"^\+(F2|F4|F6):\d+:(\d+):(?:[^:\n]*:)*([\d.e+-]+)$", out, re.M):
        name = {("F2", "2048"): "RS256", ("F4", "256"): "ES256", ("F4", "384"): "ES384",
                ("F4", "521"): "ES512", ("F6", "253"): "EdDSA"}.get((kind, bits))
        value = float(verify)
        if name and value > 0:
            found[name] = 1e9 / value if value > 1 else value * 1e9
    return found


def measure(build, rounds, slice_ms):
    out = subprocess.run([str(build / "bench" / "speeds"), str(rounds), str(slice_ms)],
                         capture_output=True, text=True, check=True).stdout
    data = json.loads(out)
    times = {}
    for step in data["steps"]:
        times.setdefault(step["group"], {})[step["name"]] = step["ns"]
    return data, times


def ratio(times, base):
    return statistics.median(a / b for a, b in zip(times, base))


def us(times):
    return f"{statistics.median(times) / 1000:.2f}"


def run(quick: bool, build: pathlib.Path) -> list[dict]:
    data, times = measure(build, *ROUNDS[quick])
    algs = [name for name in times if name != "seal"]
    speed = openssl_speed([a for a in OPENSSL if not quick or a in QUICK])
    rows, goals = [], []
    for alg in algs:
        t = times[alg]
        rows.append([
            alg, us(t["bare"]), us(t["signature"]), f"{ratio(t['signature'], t['bare']):.2f}",
            us(t["verify"]), f"{ratio(t['verify'], t['bare']):.2f}", us(t["token"]),
            f"{ratio(t['token'], t['bare']):.2f}",
            f"{speed[alg] / 1000:.2f}" if alg in speed else "-",
        ])
        value = ratio(t["signature"], t["bare"])
        goals.append({"what": f"{alg}: the signature, to bare OpenSSL", "goal": "<= 1.10x",
                      "value": f"{value:.2f}x", "reached": value <= 1.10})
    verify = {
        "title": "Tokens: verification beside bare OpenSSL (CPU us)",
        "columns": ["algorithm", "bare OpenSSL", "signature", "to bare", "whole JWS", "to bare",
                    "and claims", "to bare", "openssl speed"],
        "rows": rows,
        "goals": goals,
        "notes": [
            f"A token of {data['token_bytes']} bytes; OpenSSL {data['openssl']}; {data['rounds']} rounds.",
            "Bare: contexts set up once, the hash over the token in front of those that take one.",
            "Whole JWS: header parsed, key found, base64url. And claims: what a request pays for a"
            " token that was not seen before.",
            "openssl speed: its own process, wall time of single seconds, no hash over a token: to see"
            " that bare is what it should be.",
        ],
    }
    es, seen = times["ES256"], ratio(times["ES256"]["seen"], times["ES256"]["verify"])
    cached = {
        "title": "Tokens seen before: from the worker's cache (CPU us)",
        "columns": ["what", "us", "to an ES256 verification"],
        "rows": [["ES256 verification", us(es["verify"]), "1"],
                 ["seen before, claims looked at again", us(es["seen"]), f"{seen:.4f}"]],
        "goals": [{"what": "cached verification, to an ES256 verification", "goal": "<= 2 %",
                   "value": f"{100 * seen:.1f} %", "reached": seen <= 0.02}],
        "notes": ["SHA-256 over the whole token, the look-up, and all checks of the claims."],
    }
    seal = times["seal"]
    both = ratio(seal["ours"], seal["bare"])
    sealed = {
        "title": "A sealed state of 1 KiB, sealed and opened (CPU us)",
        "columns": ["what", "us", "to bare"],
        "rows": [["bare AES-256-GCM with base64 both ways, a key each time", us(seal["bare"]), "1"],
                 ["the same with contexts that have their key", us(seal["ready"]),
                  f"{ratio(seal['ready'], seal['bare']):.2f}"],
                 ["sw_sealed_put and sw_sealed_open", us(seal["ours"]), f"{both:.2f}"]],
        "goals": [{"what": "seal and open 1 KiB, to bare OpenSSL with base64", "goal": "<= 2x",
                   "value": f"{both:.2f}x", "reached": both <= 2}],
        "notes": ["Each visitor's state has a key of its own: ours derives it (HKDF) both times, makes a"
                  " random nonce, and takes the key out of the context again."],
    }
    return [verify, cached, sealed]


def show(tables):
    """Tables as Markdown. Returns whether all goals are reached."""
    good = True
    for t in tables:
        print(f"### {t['title']}\n\n| " + " | ".join(t["columns"]) + " |\n|" + "---|" * len(t["columns"]))
        for row in t["rows"]:
            print("| " + " | ".join(str(cell) for cell in row) + " |")
        print()
        for g in t["goals"]:
            good = good and g["reached"]
            print(f"* {'reached' if g['reached'] else 'NOT reached'}: {g['what']}: {g['value']}"
                  f" (goal {g['goal']})")
        print("".join(f"* {note}\n" for note in t["notes"]))
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--quick", action="store_true", help="under 15 s")
    args = parser.parse_args()
    return 0 if show(run(args.quick, args.build)) else 1


if __name__ == "__main__":
    sys.exit(main())
