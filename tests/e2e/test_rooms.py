"""The house: arrows between rooms point down (src/*/ include only rooms below), and the tree is tidy.

Reads the source text only; needs no build.
"""
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"

# What each room may include, from the bottom up (docs/ARCHITECTURE.md). A room may always include itself
# and base/. `supervisor` shares with the gateway process one header only, the messages between them.
BELOW = {
    "base": "",
    "io": "",
    "crypto": "",
    "http": "",
    "config": "io",  # addresses
    "route": "http config",
    "store": "io",
    "app": "io http config",
    "keysets": "io crypto",
    "placement": "io crypto http config route store app keysets",
    "realtime": "io crypto http config route store app",
    "gateway": "io crypto http config route store app keysets placement realtime",
    "admin": "io crypto http config route store app keysets placement gateway",
    "measure": "io http config app",
    "super": "io config",
    "cli": "io crypto http config route store app keysets placement realtime gateway admin measure super",
}
EXCEPTIONS = {("super", "app/control.h")}
LIBRARIES = {  # in which files a library's header may be included
    r"openssl/": r"io/tls\.c|crypto/.*",
    r"curl/": r"keysets/fetch\.c",
    r"lmdb\.h": r"store/lmdb_priv\.h",
    r"liburing\.h": r"io/uring\.c",
    r"yaml\.h": r"config/yaml_tree\.c",
    r"jansson\.h": r"cli/client\.c",
}


def tracked(*patterns):
    """Files git knows or would know (ignored ones left out), as paths below ROOT."""
    done = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z", "--", *patterns], cwd=ROOT,
                          capture_output=True, check=False)
    if done.returncode != 0:  # a source archive: no repository
        return sorted({p.relative_to(ROOT) for pattern in patterns for p in ROOT.glob(pattern.replace("src/*", "src/**/*"))})
    return sorted(Path(name.decode()) for name in done.stdout.split(b"\0")
                  if name and (ROOT / name.decode()).is_file())


def sources():
    return tracked("src/*.c", "src/*.h")


def includes(path):
    text = (ROOT / path).read_text()
    return [(text[:m.start()].count("\n") + 1, m.group(1), m.group(2))
            for m in re.finditer(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', text, re.M)]


def room_of(path):
    return path.parts[1]


def test_every_room_has_its_place():
    rooms = {room_of(path) for path in sources()}
    assert rooms, "no sources found"
    assert rooms <= set(BELOW), f"no place in the list of this test: {rooms - set(BELOW)}"


def test_no_arrow_points_up():
    wrong = []
    for path in sources():
        room = room_of(path)
        for line, mark, name in includes(path):
            target = name.split("/")[0]
            if mark == "<" or "/" not in name or target in (room, "base"):
                continue
            if target not in BELOW[room].split() and (room, name) not in EXCEPTIONS:
                wrong.append(f"{path}:{line}: {room}/ includes {name}")
    assert not wrong, "\n" + "\n".join(wrong)


def test_the_list_itself_has_no_circle():
    rank = {room: i for i, room in enumerate(BELOW)}
    for room, below in BELOW.items():
        assert all(rank[other] < rank[room] for other in below.split()), room


def test_private_headers_stay_in_their_room():
    wrong = [f"{path}:{line}: {name}" for path in sources() for line, _, name in includes(path)
             if name.endswith("_priv.h") and "/" in name and name.split("/")[0] != room_of(path)]
    assert not wrong, "\n" + "\n".join(wrong)


def test_each_library_has_its_file():
    wrong = []
    for path in sources():
        for line, mark, name in includes(path):
            for library, home in LIBRARIES.items():
                if mark == "<" and re.match(library, name):
                    if not re.fullmatch(home, str(path.relative_to("src"))):
                        wrong.append(f"{path}:{line}: {name}")
    assert not wrong, "\n" + "\n".join(wrong)


# ---- tidiness ----

# Written in pieces, so that this file does not hold them.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK|not imp" r"lemented|unimp" r"lemented|st" r"ub)\b")
THIS_MACHINE = re.compile(r"(^|[^A-Za-z0-9_.])/(wo" r"rk|fa" r"rm|ro" r"ot)/")


def lines_of(paths):
    for path in paths:
        for number, line in enumerate((ROOT / path).read_text(errors="replace").split("\n"), 1):
            yield path, number, line


def test_sources_are_tidy():
    wrong = []
    for path, number, line in lines_of(sources()):
        for what, bad in (("tab", "\t" in line), ("blank at the end", line != line.rstrip()),
                          ("longer than 100", len(line) > 100),
                          ("typedef of a struct", re.match(r"typedef (struct|enum|union)\b[^(]*$", line))):
            if bad:
                wrong.append(f"{path}:{number}: {what}")
    assert not wrong, f"{len(wrong)} lines\n" + "\n".join(wrong[:50])


@pytest.mark.parametrize("what", ["src", "apps", "tests", "docs", "script"])
def test_nothing_is_unfinished(what):
    """Neither words that put work off, nor paths of the machine it was written on."""
    paths = [p for p in tracked(f"{what}/*.c", f"{what}/*.h", f"{what}/*.py", f"{what}/*.md", f"{what}/*.build",
                                f"{what}/*.yaml") if "corpus" not in p.parts and "vectors" not in p.parts]
    wrong = [f"{path}:{number}: {line.strip()}" for path, number, line in lines_of(paths)
             if UNFINISHED.search(line) or THIS_MACHINE.search(line)]
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_file_says_what_it_is():
    wrong = []
    for path in sources():
        first = (ROOT / path).read_text().split("\n", 1)[0]
        name = re.escape(str(path.relative_to("src")))
        if not re.match(rf"/\* {name} - \S", first):
            wrong.append(f"{path}: begins with: {first[:60]}")
    assert not wrong, "\n" + "\n".join(wrong)


def test_headers_have_guards():
    wrong = [str(p) for p in sources() if p.suffix == ".h" and
             not re.search(r"^#ifndef (SW_\w+_H)\n#define \1$", (ROOT / p).read_text(), re.M)]
    assert not wrong, wrong
