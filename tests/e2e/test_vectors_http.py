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
TUNNEL = "CONNECT is not served: SW_E_METHOD_REFUSED"
FRAGMENT = "a fragment in the target: RFC 9112, 3.2"
FORM = "this form of target is for other methods only: RFC 9112, 3.2"
OTHER_PROTOCOL = "RTSP, ICE and HTTP/0.9 are not spoken"
EMPTY_LINE = "an empty line before a response is nowhere allowed"
EMPTY_LINES = "one empty line before a request is skipped, not two: RFC 9112, 2.2"
HOST = "sub-delims in Host: allowed by RFC 3986, read differently"
USERINFO = "userinfo: RFC 9110, 4.2.4"
CODING = "a coding other than chunked; llhttp reads on until the close"
LENGTH = "Content-Length with leading zeros, or blanks other than one SP: readers differ"
LLHTTP_STRICTER = {
    "request/content-length: `Content-Length` with zeroes": LENGTH,
    "request/content-length: `Content-Length` with follow-up headers": LENGTH,
    "request/content-length: Spaces in `Content-Length` (surrounding)": LENGTH,
    "request/content-length: Tabs in `Content-Length` (surrounding)": LENGTH,
    "request/connection: CRLF between requests, implicit `keep-alive`": EMPTY_LINES,
    "request/method: CONNECT request": TUNNEL,
    "request/method: CONNECT request with CAPS": TUNNEL,
    "request/method: CONNECT with body": TUNNEL,
    "request/uri: Underscore in hostname": TUNNEL,
    "request/method: M-SEARCH request": FORM,
    "request/method: PRI request HTTP2": FORM,
    "request/method: SOURCE request with ICE": OTHER_PROTOCOL,
    "request/method: OPTIONS request with RTSP": OTHER_PROTOCOL,
    "request/method: ANNOUNCE request with RTSP": OTHER_PROTOCOL,
    "request/sample: No HTTP version": OTHER_PROTOCOL,
    "request/sample: curl GET": HOST,
    "request/sample: Firefox GET": HOST,
    "request/transfer-encoding: POST with `chunked` as last transfer-encoding": FRAGMENT,
    "request/transfer-encoding: POST with `chunked` as last transfer-encoding (multiple headers)":
        FRAGMENT,
    "request/uri: Fragment in URI": FRAGMENT,
    "request/uri: `host:port` and basic auth": USERINFO,
    "response/connection: HTTP 304 with Content-Length": EMPTY_LINE,
    "response/connection: HTTP 100 first, then 400": EMPTY_LINE,
    "response/pipelining: Should parse multiple events": EMPTY_LINE,
    "response/sample: Response starting with CRLF": EMPTY_LINE,
    "response/sample: RTSP response": OTHER_PROTOCOL,
    "response/sample: ICE response": OTHER_PROTOCOL,
    "response/sample: HTTP version 0.9": OTHER_PROTOCOL,
    "response/transfer-encoding: `chunked` before other transfer-encoding": CODING,
    "response/transfer-encoding: multiple transfer-encoding where chunked is not the last one":
        CODING,
    "response/transfer-encoding: `chunkedchunked` transfer-encoding does not enable chunked "
    "enconding": CODING,
}

# Refused by llhttp or read in a lenient mode only, but fine here. Title -> why.
AFTER_CLOSE = "bytes behind the last message: the gateway's matter, not the reader's"
ANY_TOKEN = "any token is a method: RFC 9110, 9.1"
LLHTTP_FINE = {
    "request/connection: No restart when keep-alive is off (1.0)": AFTER_CLOSE,
    "request/connection: Resetting flags when keep-alive is off (1.0, lenient)": AFTER_CLOSE,
    "response/connection: HTTP/1.1 with keep-alive disabled and 204 status": AFTER_CLOSE,
    "response/connection: HTTP/1.1 with keep-alive disabled and 204 status (lenient)": AFTER_CLOSE,
    "request/invalid: HTTP protocol and ANNOUNCE method": ANY_TOKEN,
    "request/invalid: Invalid method": ANY_TOKEN,
}


def llhttp_cases():
    for path in sorted(folder("llhttp").glob("re*/*.md")):
        text = path.read_text()
        pattern = r"^#+ (.+?)\n(?:(?!^#).)*?^<!-- meta=(\{.*?\}) -->\s*```http\n(.*?)^```$"
        pattern += r"(?:(?!^#).)*?^```log\n(.*?)^```$"
        for title, meta, block, log in re.findall(pattern, text, re.M | re.S):
            raw = re.sub(r"\\\n", "", block.removesuffix("\n")).replace("\n", "\r\n")
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
    absolute = re.match(rb"[A-Z]+ https?://([^/? ]+)[^ ]* HTTP/1.1\r\n", raw)
    if absolute:
        return absolute[0] + b"Host: " + absolute[1] + b"\r\n" + raw[absolute.end():]
    return re.sub(rb"^([A-Z-]+ [^ \r\n]+ HTTP/1\.1\r\n)", rb"\1Host: a\r\n", raw, flags=re.M)


def test_llhttp():
    cases = list(llhttp_cases())
    assert len(cases) > 200
    inputs = [("Q", with_host(raw)) if kind.startswith("request") else ("R GET", raw)
              for _, kind, raw, _ in cases]
    # Some end within the head, since llhttp tells the error before: the head is completed.
    inputs = [(kind, sent.rstrip(b"\r\n") + b"\r\n\r\n"
               if "error code" in log and got["end"] == "more" and not got["messages"] else sent)
              for (_, _, _, log), (kind, sent), got in zip(cases, inputs, probe(inputs))]
    problems = []
    accepted = refused = 0
    for (title, kind, raw, log), (_, sent), got in zip(cases, inputs, probe(inputs)):
        bad = "lenient" in kind or "error code" in log and "pause" not in log.lower()
        failed = got["end"] == "fail"
        if "Upgrade\"" in log:
            failed = not got["messages"]  # what follows the first head is not HTTP any more
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

BODY = "a body with GET or HEAD is HTTP (RFC 9110, 9.3.1); it goes on with the same framing"
CODINGS = "other codings, several fields, or parameters: refused by design (501 or 400)"
CONTROL = "an escaped control byte in the path: ends a line or a string for some app"
AWS_EXCEPTIONS = {
    "ambiguous: Get with a body and Content-Length": BODY,
    "ambiguous: Get with a body and Transfer-Encoding": BODY,
    "ambiguous: Head with a body and Content-Length": BODY,
    "ambiguous: Head with a body and Transfer-Encoding": BODY,
    "real-life-test-cases: Has a CL in GET": BODY,
    "real-life-test-cases: Has a TE in GET": BODY,
    "more-compliant-tests: Correct TE OK": CODINGS,
    "more-compliant-tests: Transfer-Encoding: identity and chunked OK": CODINGS,
    "more-compliant-tests: Multiple transfer encoding headers in a single request OK": CODINGS,
    "more-compliant-tests: TE with custom parameters OK": CODINGS,
    "rfc-compliant: Different Transfer-Encoding headers": CODINGS,
    "rfc-compliant: Different Transfer-Encoding headers combined": CODINGS,
    "rfc-compliant: Transfer-Encoding with a param: chunked;custom_param": CODINGS,
    "rfc-compliant: Compliant URL": FRAGMENT,
    "rfc-compliant: Empty URI": "a target has at least one byte: RFC 9112, 3.2",
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
            # Values that were recorded begin with the blank behind the colon.
            lines = (n + (b":" if v[:1] == b" " else b": ") + v for n, v in fields)
            head = b"\r\n".join([line, *lines, b"", b""])
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
    "COMP-CHUNKED-EXTENSION": "accepted as its text prefers; the verdict wants to see the echo",
    "COMP-CONNECTION-CLOSE": "closing is the gateway's matter",
    "COMP-DATE-HEADER": "looks at the response",
    "COOK-ECHO": "looks at the response",
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
        if name in (b"transferencoding", b"contentlength"):
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
