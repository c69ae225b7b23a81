"""HTTP/1 vectors written by others, against the reader (tests/unit/http/h1_probe.c).

STATEWAY_VECTORS  the folder of vectors   (default: <repo>/../shared/vectors; never copied here)
STATEWAY_BUILD    the build directory     (default: <repo>/build-test)

Where stateway is stricter, or a vector asks for something that is not the reader's, the case
stands in a table below with its reason.
"""
import base64
import json
import os
import pathlib
import re
import subprocess

import pytest

REPO = pathlib.Path(__file__).resolve().parents[2]
VECTORS = pathlib.Path(os.environ.get("STATEWAY_VECTORS", REPO.parent / "shared" / "vectors"))
BUILD = pathlib.Path(os.environ.get("STATEWAY_BUILD", REPO / "build-test"))
PROBE = BUILD / "tests" / "unit" / "http" / "h1_probe"


def folder(name):
    if not PROBE.exists():
        pytest.skip(f"{PROBE} is not built (STATEWAY_BUILD)")
    path = VECTORS / name
    if not path.exists():
        pytest.skip(f"{path} is absent (STATEWAY_VECTORS)")
    return path


def probe(inputs):
    """Reads each (kind, bytes): kind "Q", or "R METHOD"."""
    data = b"".join(b"%s %d\n%s" % (kind.encode(), len(raw), raw) for kind, raw in inputs)
    run = subprocess.run([PROBE], input=data, stdout=subprocess.PIPE, check=True, timeout=60)
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(answers) == len(inputs)
    return answers


def statuses():
    """SW_E_NAME -> HTTP status, from errors.def."""
    text = (REPO / "src" / "base" / "errors.def").read_text()
    return {"SW_E_" + n: int(s) for n, s in re.findall(r"^SW_ERR\((\w+), (\d+),", text, re.M)}


def report(problems, total):
    assert not problems, f"{len(problems)} of {total}:\n" + "\n".join(problems)


# ---- llhttp ------------------------------------------------------------------------------------

# Accepted by llhttp's strict mode, refused here. Title -> why.
LLHTTP_STRICTER = {
}

# Refused by llhttp or read in a lenient mode only, but fine here. Title -> why.
LLHTTP_FINE = {
}


def llhttp_cases():
    for path in sorted(folder("llhttp").glob("re*/*.md")):
        text = path.read_text()
        pattern = r"^#+ (.+?)\n(?:(?!^#).)*?^<!-- meta=(\{.*?\}) -->\s*```http\n(.*?)```\s*```log\n(.*?)```"
        for title, meta, block, log in re.findall(pattern, text, re.M | re.S):
            raw = re.sub(r"\n$", "", block)
            raw = re.sub(r"\\\n", "", raw).replace("\n", "\r\n")
            for escape, char in (("\\r", "\r"), ("\\n", "\n"), ("\\t", "\t"), ("\\f", "\f")):
                raw = raw.replace(escape, char)
            raw = re.sub(r"\\x([0-9a-fA-F]+)", lambda m: chr(int(m[1], 16)), raw)
            try:
                raw = raw.encode("latin-1")
            except UnicodeEncodeError:
                raw = raw.encode()
            yield f"{path.parent.name}/{path.stem}: {title}", json.loads(meta)["type"], raw, log


def with_host(raw):
    """Most requests there have no Host, which 1.1 must have: one is added to each."""
    if re.search(rb"^host:", raw, re.M | re.I):
        return raw
    return re.sub(rb"^([A-Z-]+ [^ \r\n]+ HTTP/1\.1\r\n)", rb"\1Host: a\r\n", raw, flags=re.M)


def test_llhttp():
    cases = list(llhttp_cases())
    assert len(cases) > 200
    inputs = [("Q", with_host(raw)) if kind.startswith("request") else ("R GET", raw)
              for _, kind, raw, _ in cases]
    problems = []
    accepted = refused = 0
    for (title, kind, raw, log), (_, sent), got in zip(cases, inputs, probe(inputs)):
        bad = "lenient" in kind or "error code" in log and "pause" not in log.lower()
        failed = got["end"] == "fail"
        what = f"{title} [{kind}]: {got['end']} {got['err']} {sent[:200]!r}"
        if title in LLHTTP_STRICTER or title in LLHTTP_FINE:
            assert failed == (title in LLHTTP_STRICTER), "not an exception any more: " + what
        elif bad != failed:
            problems.append(what)
        refused += failed
        accepted += not failed
    print(f"llhttp: {accepted} accepted, {refused} refused, "
          f"{len(LLHTTP_STRICTER)} stricter, {len(LLHTTP_FINE)} fine")
    report(problems, len(cases))


# ---- aws http-desync-guardian ------------------------------------------------------------------

AWS_EXCEPTIONS = {
}


def aws_cases():
    yaml = pytest.importorskip("yaml")
    for path in sorted(folder("aws-desync").glob("*.yaml")):
        for case in yaml.safe_load(path.read_text()):
            def raw(text):
                return str(text if text is not None else "").encode("latin-1", "replace")
            line = raw(case["method"]) + b" " + raw(case["uri"])
            if case["version"]:
                line += b" " + raw(case["version"])
            fields = [(raw(f["name"]), raw(f["value"])) for f in case["headers"] or []]
            if not any(n.lower() == b"host" for n, _ in fields):
                fields.insert(0, (b"Host", b"example.com"))
            head = line + b"\r\n" + b"".join(n + b": " + v + b"\r\n" for n, v in fields) + b"\r\n"
            yield f"{path.stem}: {case['name']}", case["expected"]["tier"], head


def test_aws_desync():
    cases = list(aws_cases())
    problems, counts = [], {}
    answers = probe([("Q", raw) for _, _, raw in cases])
    for (title, tier, raw), got in zip(cases, answers):
        failed = got["end"] == "fail"
        what = f"{title} [{tier}]: {got['end']} {got['err']} {raw[:300]!r}"
        counts[tier, failed] = counts.get((tier, failed), 0) + 1
        if tier == "Acceptable":
            continue
        expected = tier in ("Severe", "Ambiguous")
        if title in AWS_EXCEPTIONS:
            assert failed != expected, "not an exception any more: " + what
        elif failed != expected:
            problems.append(what)
    print("aws-desync:", counts)
    report(problems, len(cases))


# ---- Http11Probe -------------------------------------------------------------------------------

HTTP11PROBE_EXCEPTIONS = {
}


def test_http11probe():
    cases = json.loads((folder("http11probe") / "cases.json").read_text())
    answers = probe([("Q", base64.b64decode(c["request_base64"])) for c in cases])
    status = statuses()
    problems, counts = [], {}
    for case, got in zip(cases, answers):
        code = 200
        if got["end"] == "more":
            verdict = case["verdict"]["no_response_timeout"]
        else:
            if got["end"] == "fail":
                code = status[got["err"]]
            verdict = next((v for low, high, v in case["verdict"]["status"] if low <= code <= high),
                           "Fail")
        counts[verdict] = counts.get(verdict, 0) + 1
        what = (f"{case['id']}: {got['end']} {got['err']} {code}: {verdict} "
                f"({case['description']}; {case['expected_text']}; scored {case['scored']}) "
                f"{base64.b64decode(case['request_base64'])[:200]!r}")
        if case["id"] in HTTP11PROBE_EXCEPTIONS:
            assert verdict == "Fail", "not an exception any more: " + what
        elif verdict == "Fail":
            problems.append(what)
    print("http11probe:", counts)
    report(problems, len(cases))


# ---- smuggler ----------------------------------------------------------------------------------

def framing_lines(head):
    """Lines that any reader could take for framing: names without all but letters."""
    for line in head.split(b"\r\n")[1:]:
        name = re.sub(rb"[^a-z]", b"", line.split(b":")[0].lower())
        if name in (b"transferencoding", b"contentlength") or b"chunked" in line.lower():
            yield line


def test_te_mutations():
    cases = json.loads((folder("smuggler-te-mutations") / "payloads.json").read_text())
    answers = probe([("Q", base64.b64decode(c["request_base64"])) for c in cases])
    problems, refused = [], 0
    for case, got in zip(cases, answers):
        raw = base64.b64decode(case["request_base64"])
        if not got["messages"]:
            refused += got["end"] == "fail"
            if got["end"] != "fail":
                problems.append(f"{case['name']}: {got}")
            continue
        for m in got["messages"]:
            head = bytes.fromhex(m["forward"])
            want = {"none": [], "length": [b"Content-Length: %d" % m["length"]],
                    "chunked": [b"Transfer-Encoding: chunked"]}[m["framing"]]
            clean = head.endswith(b"\r\n\r\n") and not re.search(rb"(?<!\r)\n|\r(?!\n)|\0", head)
            if list(framing_lines(head)) != want or not clean:
                problems.append(f"{case['name']} {case['kind']}: {raw!r}\n-> {head!r}")
    print(f"te-mutations: {refused} refused, {len(cases) - refused} forwarded")
    report(problems, len(cases))
