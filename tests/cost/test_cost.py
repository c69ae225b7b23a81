"""What an exchange costs must not grow unseen: cost.py counts it, cost.json keeps what it was.

Figures that changed for a reason are kept with `tests/cost/cost.py --write REASON`, in the same commit.
"""
import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import cost  # noqa: E402

BUILD = cost.ROOT / os.environ.get("STATEWAY_BUILD", "build")


@pytest.fixture(scope="module")
def figures():
    if shutil.which("valgrind") is None:
        pytest.skip("no valgrind")
    if not (BUILD / "tests" / "cost" / "cost_wrap.so").exists():
        pytest.fail(f"{BUILD} is not built; script/bootstrap --release", pytrace=False)
    if b"__asan_init" in (BUILD / "stateway").read_bytes():
        pytest.skip("a sanitizer and valgrind do not go together: STATEWAY_BUILD=build")
    return cost.measure(BUILD)


@pytest.fixture(scope="module")
def kept():
    kept = cost.load()
    now = cost.toolchain(BUILD)
    if kept["toolchain"] != now:
        pytest.skip(f"kept figures are of {kept['toolchain']}, this is {now}")
    return kept["exchanges"]


@pytest.mark.parametrize("kind", cost.KINDS)
def test_no_allocation_for_an_exchange(figures, kind):
    assert figures[kind]["allocations"] == 0


@pytest.mark.parametrize("kind", cost.KINDS)
def test_instructions_of_an_exchange(figures, kept, kind):
    was, now = kept[kind]["instructions"], figures[kind]["instructions"]
    assert now <= was * (1 + cost.TOLERANCE), (
        f"{kind}: {now:.0f} instructions an exchange, {was:.0f} before.\n{cost.table(figures, kept)}\n"
        "Find them: tests/cost/cost.py --keep FOLDER, then callgrind_annotate. If they are worth it: "
        "tests/cost/cost.py --write REASON")


@pytest.mark.parametrize("kind", cost.KINDS)
def test_system_calls_of_an_exchange(figures, kept, kind):
    assert figures[kind]["system_calls"] <= kept[kind]["system_calls"] + 0.25


def test_what_is_cheaper_is_kept(figures, kept):
    """Else the gain could be lost again unseen."""
    for kind, was in kept.items():
        assert figures[kind]["instructions"] >= was["instructions"] * (1 - 2 * cost.TOLERANCE), (
            f"{kind} became cheaper: keep that with tests/cost/cost.py --write REASON\n"
            + cost.table(figures, kept))


def test_figures_have_a_reason():
    assert cost.load()["reason"].strip()
