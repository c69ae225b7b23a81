"""base/json.c against what others collected: JSONTestSuite, RFC 7396 appendix A, wycheproof.

The vectors lie outside of the repository (STATEWAY_VECTORS, default <repo>/../shared/vectors) and
the probes in the build folder (STATEWAY_BUILD, default <repo>/build); without them the tests skip.
"""

import json
import os
import pathlib
import random
import struct
import subprocess

import pytest

REPO = pathlib.Path(__file__).resolve().parents[2]
VECTORS = pathlib.Path(os.environ.get("STATEWAY_VECTORS", REPO.parent / "shared" / "vectors"))
BUILD = pathlib.Path(os.environ.get("STATEWAY_BUILD", REPO / "build"))

# y_ files that our policy refuses, and why.
POLICY = {
    "y_object_duplicated_key.json": "duplicate name",
    "y_object_duplicated_key_and_value.json": "duplicate name",
}


def folder(name):
    path = VECTORS / name
    if not path.is_dir():
        pytest.skip(f"no vectors at {path}: set STATEWAY_VECTORS")
    return path


class Probe:
    def __init__(self, mode):
        exe = BUILD / "tests" / "unit" / "base" / "json_probe"
        if not exe.is_file():
            pytest.skip(f"no probe at {exe}: build it, or set STATEWAY_BUILD")
        self.proc = subprocess.Popen([exe, mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, *texts):
        for text in texts:
            self.proc.stdin.write(struct.pack("<I", len(text)) + text)
        self.proc.stdin.flush()
        head = self.proc.stdout.read(5)
        assert len(head) == 5, f"the probe died on {texts!r}"
        refused, length = struct.unpack("<BI", head)
        return bool(refused), self.proc.stdout.read(length)

    def close(self):
        self.proc.stdin.close()
        assert self.proc.wait() == 0


@pytest.fixture
def probe():
    made = []

    def make(mode):
        made.append(Probe(mode))
        return made[-1]

    yield make
    for p in made:
        p.close()


def test_parsing(probe):
    files = sorted(folder("jsontestsuite/test_parsing").glob("*.json"))
    check, compact = probe("check"), probe("compact")
    wrong = []
    counted = {"y": 0, "n": 0, "i": 0}
    assert files
    for file in files:
        kind = file.name[0]
        data = file.read_bytes()
        refused, why = check.ask(data)
        counted[kind] += 1
        if kind == "y" and file.name in POLICY:
            if not refused or POLICY[file.name].encode() not in why:
                wrong.append(f"{file.name}: policy says {POLICY[file.name]}, got {why}")
        elif kind == "y" and refused:
            wrong.append(f"{file.name}: refused: {why.decode()}")
        elif kind == "n" and not refused:
            wrong.append(f"{file.name}: accepted")
        if not refused:
            again, text = compact.ask(data)
            assert not again
            assert all(0x20 <= byte <= 0x7E for byte in text), file.name
            assert same(parse(text), parse(data)), file.name
    assert not wrong, "\n".join(wrong)
    assert counted["y"] > 90 and counted["n"] > 180, counted


def parse(text):
    """Numbers stay text, so that spelling is compared too."""
    return json.loads(text, parse_int=lambda s: ("n", s), parse_float=lambda s: ("n", s))


def same(a, b):
    return a == b and type(a) is type(b)


def merge(target, patch):
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def test_transform(probe):
    """Pitfalls of parsers: whatever we accept must mean the same to another parser."""
    check, compact = probe("check"), probe("compact")
    for file in sorted(folder("jsontestsuite/test_transform").glob("*.json")):
        data = file.read_bytes()
        refused, _ = check.ask(data)
        if not refused:
            assert same(parse(compact.ask(data)[1]), parse(data)), file.name


def test_merge_patch(probe):
    rows = json.loads((folder("json-merge-patch") / "rfc7396-appendix-a.json").read_text())
    p = probe("merge")
    assert rows
    for row in rows:
        refused, text = p.ask(json.dumps(row["doc"]).encode(), json.dumps(row["patch"]).encode())
        assert not refused, row
        assert json.loads(text) == row["expected"], row


def random_value(rng, depth):
    kind = rng.randrange(8)
    if depth == 0 or kind >= 4:
        return rng.choice([None, True, False, "", "x", "é", "\U0001f600", "a\"\\\n", 0, -1, 1.5, 10**20])
    if kind == 3:
        return [random_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    names = ["a", "b", "c", "é", "\\", "n", "", "\u0000", *(f"k{i}" for i in range(12))]
    return {rng.choice(names): random_value(rng, depth - 1) for _ in range(rng.randrange(14))}


def test_merge_random(probe):
    """Against the algorithm of RFC 7396 in Python, with both spellings of non-ASCII."""
    rng = random.Random(7396)
    p = probe("merge")
    for _ in range(3000):
        target, patch = random_value(rng, 5), random_value(rng, 5)
        texts = [
            json.dumps(v, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 1])).encode()
            for v in (target, patch)
        ]
        refused, text = p.ask(*texts)
        assert not refused, (texts, text)
        assert parse(text) == merge(parse(texts[0]), parse(texts[1]))
        if isinstance(target, dict) and isinstance(patch, dict):
            kept = [n for n in target if n not in patch or patch[n] is not None]
            assert list(json.loads(text))[: len(kept)] == kept  # the target's order stands


def wycheproof(name):
    path = folder("wycheproof/testvectors_v1") / name
    exe = BUILD / "tests" / "unit" / "crypto" / "crypto_probe"
    if not path.is_file():
        pytest.skip(f"no vectors at {path}")
    if not exe.is_file():
        pytest.skip(f"no probe at {exe}: build it, or set STATEWAY_BUILD")
    return exe, json.loads(path.read_text())["testGroups"]


def test_wycheproof_hmac():
    """Our keys have 32 bytes: the groups of 256-bit keys, tags whole or compared by their head."""
    exe, groups = wycheproof("hmac_sha256_test.json")
    rows = [(g["tagSize"], t) for g in groups if g["keySize"] == 256 for t in g["tests"]]
    asked = "".join(f"hmac {t['key']} {t['msg'] or '-'}\n" for _, t in rows)
    answers = subprocess.run([exe], input=asked, capture_output=True, text=True, check=True)
    assert rows
    for (bits, t), tag in zip(rows, answers.stdout.split("\n")):
        assert (tag[: bits // 4] == t["tag"]) == (t["result"] == "valid"), t


def test_wycheproof_hkdf():
    """Ours: a 32-byte secret, no salt, 32 bytes out (shorter ones are the head of those)."""
    exe, groups = wycheproof("hkdf_sha256_test.json")
    rows = [
        t
        for g in groups
        for t in g["tests"]
        if len(t["ikm"]) == 64 and t["salt"] == "" and t["size"] <= 32 and t["result"] == "valid"
    ]
    asked = "".join(f"hkdf {t['ikm']} {t['info'] or '-'}\n" for t in rows)
    answers = subprocess.run([exe], input=asked, capture_output=True, text=True, check=True)
    if not rows:
        pytest.skip("no vector has this shape")
    for t, okm in zip(rows, answers.stdout.split("\n")):
        assert okm[: 2 * t["size"]] == t["okm"], t
