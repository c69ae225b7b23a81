"""owner: subject: an entity belongs to the subject that made it, and to nobody else."""
import json
import threading
import uuid

import pytest

from harness import Gateway, Origin, answer


def respond(asked, raw):
    """X-Say: headers of the answer, as JSON pairs. The body tells what came."""
    told = {k.lower(): v for k, v in asked.headers if k.lower().startswith("stateway")}
    return answer(200, json.dumps(told), [tuple(pair) for pair in json.loads(asked.get("x-say", "[]"))])


@pytest.fixture(scope="module")
def world():
    origin = Origin(respond)
    with Gateway({"apps": {"a": {"servers": [origin.address]}},
                  "routes": [{"path": "/doc/{doc}", "app": "a", "state": "session",
                              "session": {"key": "path.doc", "owner": "subject"}},
                             {"path": "/open/{doc}", "app": "a", "state": "session", "session": {"key": "path.doc"}},
                             {"path": "/*", "app": "a", "state": "session"}]}) as gateway:
        gateway.origin = origin
        yield gateway
    origin.close()


class Person:
    def __init__(self, gateway, subject=None):
        self.gateway, self.cookies = gateway, {}
        if subject:
            self.login(subject)

    def say(self, method, path, *headers, **options):
        got = self.gateway.request(method, path, [("X-Say", json.dumps(headers)), *options.get("send", [])],
                                   b"" if method not in ("GET", "HEAD") else None, cookies=self.cookies)
        for line in got.all("set-cookie"):
            if "max-age=0" in line.lower():
                self.cookies.pop(line.split("=", 1)[0], None)
        return got

    def login(self, subject):
        assert self.say("POST", "/login", ("Stateway-Subject", subject), ("Stateway-Patch", "{}")).status == 200
        assert self.cookies

    def logout(self):
        assert self.say("POST", "/logout", ("Stateway-Delete", "?1")).status == 200
        assert not self.cookies

    def write(self, path, state):
        return self.say("POST", path, ("Stateway-Set", json.dumps(state)))

    def read(self, path):
        got = self.say("GET", path)
        told = got.json() if got.status == 200 else {}
        return got, (json.loads(told["stateway-state"]) if "stateway-state" in told else None)


@pytest.fixture
def doc():
    return f"/doc/{uuid.uuid4().hex}"


def refused(got):
    assert (got.status, got.get("stateway-error")) == (403, "not-owner"), got
    assert b"secret" not in got.body
    return True


def test_mine_and_nobody_elses(world, doc):
    ada, bob, nobody = Person(world, "ada"), Person(world, "bob"), Person(world)
    assert ada.write(doc, {"secret": 1}).status == 200
    assert ada.read(doc)[1] == {"secret": 1}
    before = len(world.origin.asked)
    for other in (bob, nobody):
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
            got = other.say(method, doc, ("Stateway-Set", '{"stolen":1}'))
            assert (got.status, got.get("stateway-error")) == (403, "not-owner")
    assert len(world.origin.asked) == before, "the app was asked"
    assert ada.write(doc, {"secret": 2}).status == 200
    assert ada.read(doc)[1] == {"secret": 2}


def test_by_person_not_by_session(world, doc):
    """Another browser of hers, or the next login: hers all the same."""
    first, second = Person(world, "ada"), Person(world, "ada")
    assert first.write(doc, {"n": 1}).status == 200
    assert second.read(doc)[1] == {"n": 1}
    assert second.write(doc, {"n": 2}).status == 200
    first.logout()
    refused(first.read(doc)[0])
    assert second.read(doc)[1] == {"n": 2}
    first.login("ada")
    assert first.read(doc)[1] == {"n": 2}
    second.login("bob")  # another one at the same browser
    refused(second.read(doc)[0])
    refused(second.write(doc, {}))


def test_a_session_without_a_subject(world, doc):
    guest = Person(world)
    assert guest.write("/cart", {"pen": 1}).status == 200  # knows a session, but no name
    refused(guest.write(doc, {"n": 1}))
    ada = Person(world, "ada")
    assert ada.read(doc)[1] is None  # nothing was made
    assert ada.write(doc, {"n": 1}).status == 200
    refused(guest.read(doc)[0])
    guest.login("ada")
    assert guest.read(doc)[1] == {"n": 1}


@pytest.mark.parametrize("near", ["Ada", "ada ", "ada\u0000"[:3] + "x", "ad", "adaa", '"ada"', "bob"])
def test_nearly_the_same_name(world, doc, near):
    assert Person(world, "ada").write(doc, {"secret": 1}).status == 200
    other = Person(world)
    got = other.say("POST", "/login", ("Stateway-Subject", near), ("Stateway-Patch", "{}"))
    if got.status != 200 or near.strip() == "ada":
        return  # not a subject at all, or blanks around it that HTTP takes off
    refused(other.read(doc)[0])


@pytest.mark.parametrize("header", [("Stateway-Subject", "ada"), ("stateway_subject", "ada"),
                                    ("Stateway-Visitor", "ada"),
                                    ("Authorization", "Bearer ada"), ("X-Forwarded-User", "ada")])
def test_headers_of_clients_prove_nothing(world, doc, header):
    assert Person(world, "ada").write(doc, {"secret": 1}).status == 200
    for other in (Person(world), Person(world, "bob")):
        refused(other.say("GET", doc, send=[header]))
        refused(other.say("POST", doc, ("Stateway-Set", "{}"), send=[header]))


def test_a_dead_cookie(world, doc):
    ada = Person(world, "ada")
    assert ada.write(doc, {"secret": 1}).status == 200
    thief = Person(world)
    thief.cookies = dict(ada.cookies)
    assert thief.read(doc)[1] == {"secret": 1}  # it is her session
    ada.logout()
    refused(thief.read(doc)[0])
    thief.cookies = {"sid": "A" * 43}
    refused(thief.read(doc)[0])


def test_the_owner_does_not_change(world, doc):
    """Not by a name in the answer to somebody's request for the entity."""
    ada, bob = Person(world, "ada"), Person(world, "bob")
    assert ada.write(doc, {"n": 1}).status == 200
    got = ada.say("POST", doc, ("Stateway-Set", '{"n":2}'), ("Stateway-Subject", "bob"))
    if got.status == 200:  # ignored or refused, never obeyed half-way
        assert (ada.read(doc)[0].status, bob.read(doc)[0].status) in ((200, 403), (403, 200))
    else:
        assert ada.read(doc)[1] == {"n": 1}
        refused(bob.read(doc)[0])


def test_ended_and_made_anew(world, doc):
    """What she ended is nobody's; whoever makes it then owns it."""
    ada, bob = Person(world, "ada"), Person(world, "bob")
    assert ada.write(doc, {"secret": 1}).status == 200
    assert ada.say("POST", doc, ("Stateway-Delete", "?1")).status == 200
    got, state = bob.read(doc)
    assert state is None
    if bob.write(doc, {"n": 2}).status == 200:
        refused(ada.read(doc)[0])
        assert bob.read(doc)[1] == {"n": 2}


def test_two_at_once(world):
    """Of those who make one name at the same time, one owns it, and the others got nothing."""
    for _ in range(10):
        doc, people = f"/doc/{uuid.uuid4().hex}", [Person(world, f"p{n}") for n in range(6)]
        got, gate = {}, threading.Barrier(len(people))

        def make(n):
            gate.wait(5)
            got[n] = people[n].write(doc, {"by": n}).status
        threads = [threading.Thread(target=make, args=(n,)) for n in range(len(people))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [n for n, status in got.items() if status == 200]
        assert len(winners) == 1, got
        assert set(got.values()) <= {200, 403, 409}
        for n, person in enumerate(people):
            seen, state = person.read(doc)
            if n == winners[0]:
                assert state == {"by": n}
            else:
                refused(seen)


def test_other_routes_do_not_ask(world):
    path = f"/open/{uuid.uuid4().hex}"
    assert Person(world, "ada").write(path, {"n": 1}).status == 200
    assert Person(world).read(path)[1] == {"n": 1}


def test_survives_a_kill(gateway, doc):
    origin = Origin(respond)
    try:
        g = gateway({"apps": {"a": {"servers": [origin.address]}},
                     "routes": [{"path": "/doc/{doc}", "app": "a", "state": "session",
                                 "session": {"key": "path.doc", "owner": "subject"}},
                                {"path": "/*", "app": "a", "state": "session"}]})
        ada, bob = Person(g, "ada"), Person(g, "bob")
        assert ada.write(doc, {"n": 1}).status == 200
        g.kill_gateway()
        refused(bob.read(doc)[0])
        assert ada.read(doc)[1] == {"n": 1}
    finally:
        origin.close()


def test_its_own_cookie_name(gateway):
    """The route names the cookie that says who somebody is."""
    origin = Origin(respond)
    try:
        g = gateway({"apps": {"a": {"servers": [origin.address]}},
                     "routes": [{"path": "/doc/{doc}", "app": "a", "state": "session",
                                 "session": {"key": "path.doc", "owner": "subject", "cookie": {"name": "who"}}},
                                {"path": "/login", "app": "a", "state": "session",
                                 "session": {"cookie": {"name": "who"}}},
                                {"path": "/*", "app": "a", "state": "session"}]})
        ada = Person(g, "ada")
        assert set(ada.cookies) == {"who"}
        assert ada.write("/doc/1", {"n": 1}).status == 200
        other = Person(g)
        assert other.say("POST", "/else", ("Stateway-Subject", "ada"), ("Stateway-Set", "{}")).status == 200
        assert set(other.cookies) == {"sid"}
        refused(other.read("/doc/1")[0])
        assert json.loads(ada.read("/doc/1")[0].json()["stateway-state"]) == {"n": 1}
    finally:
        origin.close()


def test_the_cookie_does_not_reach_the_app(world, doc):
    ada = Person(world, "ada")
    world.origin.asked.clear()
    assert ada.write(doc, {"n": 1}).status == 200
    asked = [a for a in world.origin.asked if a.target == doc][-1]
    assert ada.cookies["sid"] not in json.dumps(asked.headers)
