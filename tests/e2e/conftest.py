"""Fixtures for all end-to-end tests: see harness.py."""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import harness  # noqa: E402


def pytest_generate_tests(metafunc):
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", harness.engines())


@pytest.fixture(autouse=True)
def engine_there(request):
    """A test of an engine that the kernel refuses is skipped."""
    if "engine" in request.fixturenames and request.getfixturevalue("engine") == "uring":
        if not harness.has_uring():
            pytest.skip("the kernel refuses io_uring here")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    setattr(item, "failed_" + call.when, outcome.get_result().failed)


@pytest.fixture
def gateway(request):
    """gateway(config, ...) starts a Gateway; all are ended, and checked, after the test."""
    if not harness.BINARY.exists():
        pytest.fail(f"{harness.BINARY} is not built; script/bootstrap --test", pytrace=False)
    running = []

    def start(*args, **options):
        running.append(harness.Gateway(*args, **options))
        return running[-1]

    yield start
    failed = getattr(request.node, "failed_call", False)
    first = None
    for one in reversed(running):
        if failed:
            print(f"--- stateway {' '.join(one.args)}\n{one.log()[-20000:]}", file=sys.stderr)
            one.discard()
            continue
        try:
            one.close()
        except AssertionError as e:
            first = first or e
    if first:
        raise first


@pytest.fixture
def origin():
    """origin(respond, ...) starts an Origin; all are closed after the test."""
    running = []

    def start(*args, **options):
        running.append(harness.Origin(*args, **options))
        return running[-1]

    yield start
    for one in running:
        one.close()
