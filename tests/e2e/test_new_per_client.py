"""limits.new-per-client: nobody fills the store for all. Clients are told apart by what a trusted proxy says."""
import json
import uuid

import pytest

from harness import Gateway, Origin, answer

LIMIT = 5


def respond(asked, raw):
    if asked.target.startswith("/read"):
        return answer(200, json.dumps({"state": asked.get("stateway-state")}))
    if asked.target.startswith("/kept"):
        return answer(200, "x" * 10_000)
    if asked.target.startswith("/fail"):
        return answer(500, "", [("Stateway-Set", '{"n":1}')])
    return answer(200, "", [("Stateway-Set", '{"n":1}')])


@pytest.fixture
def world():
    origin = Origin(respond)
    with Gateway({"apps": {"a": {"servers": [origin.address]}}, "trusted": ["127.0.0.1"], "workers": 2,
                  "limits": {"new-per-client": LIMIT},
                  "routes": [{"path": "/room/{room}", "app": "a", "state": "session", "session": {"key": "path.room"}},
                             {"path": "/pay", "app": "a", "idempotency": {"principal": "header.X-Who"}},
                             {"path": "/kept", "app": "a", "idempotency": {"principal": "header.X-Who"}},
                             {"path": "/*", "app": "a", "state": "session"}]}) as gateway:
        yield gateway
    origin.close()


def post(world, path="/x", client=None, cookies=None, **more):
    headers = [(k.replace("_", "-"), v) for k, v in more.items()]
    headers += [("X-Forwarded-For", client)] if client else []
    return world.post(path, b"", headers=headers, cookies=cookies)


def refused(got):
    assert (got.status, got.get("stateway-error")) == (429, "too-many-new"), got
    assert 1 <= int(got.get("retry-after")) <= 3601
    assert not got.all("set-cookie")


@pytest.mark.parametrize("client, same, other", [
    ("203.0.113.7", "203.0.113.7", "203.0.113.8"),
    ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"),
    ("::ffff:203.0.113.9", "203.0.113.9", "203.0.113.10"),
])
def test_sessions(world, client, same, other):
    jars = []
    for _ in range(LIMIT):
        jars.append({})
        assert post(world, client=client, cookies=jars[-1]).status == 200
    refused(post(world, client=client))
    refused(post(world, client=same))
    assert post(world, client=other).status == 200
    # who has one goes on, reads cost nothing, and nothing is taken from what was refused
    for jar in jars:
        assert post(world, client=client, cookies=jar).status == 200
    assert world.get("/read", headers=[("X-Forwarded-For", client)]).json() == {"state": None}
    assert post(world, "/fail", client=client).status == 500


def test_entities_and_keys_are_counted_with_them(world):
    who = "198.51.100.20"
    assert post(world, client=who).status == 200
    room = f"/room/{uuid.uuid4().hex}"
    assert [post(world, room, client=who).status for _ in range(4)] == [200] * 4  # one that is there is not new
    keys = [str(uuid.uuid4()) for _ in range(4)]
    for k in keys[:3]:
        for _ in range(3):
            assert post(world, "/pay", client=who, Idempotency_Key=k, X_Who="a").status == 200
    refused(post(world, "/pay", client=who, Idempotency_Key=keys[3], X_Who="another"))
    refused(post(world, f"/room/{uuid.uuid4().hex}", client=who))
    # the key that was refused is as new, for whoever may
    assert post(world, "/pay", client="198.51.100.21", Idempotency_Key=keys[3], X_Who="another").get(
        "idempotent-replayed") is None
    assert post(world, "/pay", client=who, Idempotency_Key=keys[0], X_Who="a").get("idempotent-replayed") == "true"


def test_a_long_answer_that_is_kept_counts_more(world):
    who = "198.51.100.30"
    assert post(world, "/kept", client=who, Idempotency_Key="k1", X_Who="a").status == 200  # 1 + 2
    assert post(world, "/kept", client=who, Idempotency_Key="k2", X_Who="a").status == 200  # 1 + 2: too many, but done
    refused(post(world, "/kept", client=who, Idempotency_Key="k3", X_Who="a"))
    assert post(world, "/kept", client=who, Idempotency_Key="k2", X_Who="a").get("idempotent-replayed") == "true"


@pytest.mark.parametrize("client", [None, "10.1.2.3", "192.168.7.7", "172.16.0.1", "100.64.0.1", "fd00::1", "::1",
                                    "nonsense"])
def test_who_is_not_counted(world, client):
    for _ in range(3 * LIMIT):
        assert post(world, client=client).status == 200


def test_nobody_says_it_of_himself(world):
    """Only the entry that the trusted proxy made counts, not what the client had sent to it."""
    for n in range(LIMIT):
        assert post(world, client=f"203.0.113.{100 + n}, 198.51.100.40").status == 200
    refused(post(world, client="203.0.113.99, 198.51.100.40"))
