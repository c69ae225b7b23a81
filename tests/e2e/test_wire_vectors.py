"""HTTP/1 vectors written by others, over the wire: through the gateway to an origin that writes down what came.

STATEWAY_VECTORS  the folder of vectors (default: <repo>/../shared/vectors; never copied here)

The reader alone is held against them in test_vectors_http.py; here what counts is what a client sees and
what reaches an app. See origins/recording.py.
"""
import base64
import concurrent.futures
import json
import os
import re
import socket
from pathlib import Path

import pytest

from harness import ROOT, Gateway, Raw
from origins.recording import Recorder
from test_vectors_http import AWS_EXCEPTIONS, aws_cases

VECTORS = Path(os.environ.get("STATEWAY_VECTORS", ROOT.parent / "shared" / "vectors"))


def cases(name):
    path = VECTORS / name
    if not path.exists():
        pytest.skip(f"{path} is absent (STATEWAY_VECTORS)")
    return json.loads(path.read_text())


@pytest.fixture
def recorder():
    with Recorder() as one:
        yield one


@pytest.fixture
def service(gateway, engine, recorder):
    return gateway({"apps": {"a": {"servers": [recorder.address]}}, "routes": [{"path": "/*", "app": "a"}]},
                   engine=engine, log_level="info")


def outcome(address, data, wait):
    """(status or None, closed, head, what came until the end or the wait): what a client meets."""
    with socket.create_connection(address, timeout=10) as client:
        client.settimeout(wait)
        got = b""
        try:
            client.sendall(data)
            while b"\r\n\r\n" not in got:
                more = client.recv(65536)
                if not more:
                    return None, True, b"", b""
                got += more
        except socket.timeout:
            return None, False, b"", b""
        except ConnectionError:
            return None, True, b"", b""
        head, _, rest = got.partition(b"\r\n\r\n")
        closed = False
        try:
            client.settimeout(0.2)
            while not closed:
                more = client.recv(65536)
                rest, closed = rest + more, not more
        except OSError:
            pass
        return int(got.split(b" ", 2)[1]), closed, head.lower(), rest


# Its code looks at more than the status here, which the data cannot say: then this decides for a 2xx.
LOOKS = {
    "COMP-CHUNKED-EXTENSION": lambda closed, head, body: body == b"hello",
    "COMP-CONNECTION-CLOSE": lambda closed, head, body: closed,
    "COMP-HTTP10-DEFAULT-CLOSE": lambda closed, head, body: closed,
    "COMP-DATE-HEADER": lambda closed, head, body: b"\r\ndate: " in head,
    "COMP-CONTENT-TYPE": lambda closed, head, body: b"\r\ncontent-type: " in head,
}


# ---- Http11Probe ----


def test_http11probe(service, recorder):
    probes = cases("http11probe/cases.json")
    counts, failed, scored = {}, [], 0
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = pool.map(lambda c: outcome(service.address, base64.b64decode(c["request_base64"]), 1.0), probes)
        for case, (status, closed, head, body) in zip(probes, found):
            verdict = case["verdict"]
            if status is None:
                said = verdict["no_response_closed"] if closed else verdict["no_response_timeout"]
            else:
                said = next((v for low, high, v in verdict["status"] if low <= status <= high), "Fail")
            if case["id"] in LOOKS and status is not None and status < 300:
                said = "Pass" if LOOKS[case["id"]](closed, head, body) else "Fail"
            if not case["scored"]:
                continue
            scored += 1
            counts[said] = counts.get(said, 0) + 1
            if said != "Pass":
                failed.append(f"{said} {case['id']}: {status}, closed {closed}; {case['expected_text']}; "
                              f"{base64.b64decode(case['request_base64'])[:200]!r}")
    print(f"http11probe: {counts} of {scored}\n" + "\n".join(failed))
    assert scored >= 134
    assert counts["Pass"] >= 120, "\n".join(failed)
    assert not [f for f in failed if f.startswith("Fail SMUG-")], "\n".join(failed)
    assert not recorder.wrong


# ---- aws http-desync-guardian ----


def test_aws_desync(service, recorder):
    """Severe and Ambiguous: refused and closed. Compliant: passes, as one request."""
    if not (VECTORS / "aws-desync").exists():
        pytest.skip(f"{VECTORS / 'aws-desync'} is absent (STATEWAY_VECTORS)")
    problems, counts = [], {}
    for title, tier, head in aws_cases():
        recorder.take()
        match = re.search(rb"\r\ncontent-length: (\d{1,7})[ \t]*\r\n", head, re.I)
        body = b"0\r\n\r\n" if re.search(rb"\r\ntransfer-encoding:", head, re.I) else b"x" * int(match[1]) if match else b""
        with Raw(service.address) as raw:
            raw.socket.settimeout(2)
            status = None
            try:
                raw.send(head + body)
                status = raw.read_head().status
            except (OSError, EOFError):
                pass
            refused = status is None or status >= 400
        seen = recorder.take()
        counts[tier, refused] = counts.get((tier, refused), 0) + 1
        what = f"{title} [{tier}]: {status}, {len(seen)} seen, {head[:300]!r}"
        expected = {"Severe": True, "Ambiguous": True, "Compliant": False}.get(tier, refused)
        if title in AWS_EXCEPTIONS:
            expected = not expected
        if refused != expected or len(seen) != (0 if refused else 1):
            problems.append(what)
    print("aws-desync:", counts)
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems)
    assert not recorder.wrong, recorder.wrong


# ---- smuggler ----


def test_te_mutations(service, recorder):
    """Each is refused before an app gets a whole request, or reaches it as exactly one, with one meaning; a second
    request on the connection is the one that was sent, or none."""
    mutations = cases("smuggler-te-mutations/payloads.json")
    after = b"GET /after HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def play(case):
        raw, answers = base64.b64decode(case["request_base64"]), 0
        with socket.create_connection(service.address, timeout=10) as client:
            client.settimeout(5)
            got = b""
            try:
                client.sendall(raw + after)
                client.shutdown(socket.SHUT_WR)
                while True:
                    more = client.recv(65536)
                    if not more:
                        break
                    got += more
            except ConnectionError:
                pass
            answers = [int(s) for s in re.findall(rb"HTTP/1\.1 (\d{3}) ", got)]
        return answers

    problems, refused, passed = [], 0, 0
    for case in mutations:
        answers, seen = play(case), recorder.take()
        what = f"{case['name']} {case['kind']}: {answers} {seen} {base64.b64decode(case['request_base64'])!r}"
        if answers and answers[0] >= 400:
            refused += 1
            if len(answers) != 1 or seen:
                problems.append(what)
            continue
        passed += 1
        # Behind the one request may stand what the sender's other framing would have hidden: then it is no request.
        if not seen or seen[0].method != "POST" or any(s.target != "/after" for s in seen[1:]) or len(seen) > 2:
            problems.append(what)
        if answers and answers[-1] < 400 and len(answers) != len(seen):
            problems.append(what)
    print(f"te-mutations: {refused} refused, {passed} passed on, of {len(mutations)}")
    assert not recorder.wrong, recorder.wrong[:10]
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems[:20])
