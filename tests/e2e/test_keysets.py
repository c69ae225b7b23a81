"""Keys of issuers: from files and URLs, kept fresh, and never lost because a fetch failed."""
import json
import os
import re
import socket
import threading
import time

import pytest

from harness import Gateway, Origin, Raw, answer, request_bytes, sanitized, wait_for
from issuer import NO_PROXY, Authority, Issuer
from tokens import Key, b64, claims, jwks

FETCH_S, AGAIN_S = 5, 10  # SW_KEYSET_FETCH_MS, SW_KEYSET_AGAIN_S


@pytest.fixture(scope="module")
def app():
    with Origin(lambda asked, raw: answer(200, b"in")) as origin:
        yield origin


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def issuer(request):
    """issuer(keys, ...) starts an Issuer; all are closed after the test."""
    running = []

    def start(*args, **options):
        running.append(Issuer(*args, **options))
        return running[-1]

    yield start
    for one in running:
        one.close()


def config(app, keys):
    return {"apps": {"a": {"servers": [app.address]}},
            "routes": [{"path": "/*", "app": "a",
                        "token": {"keys": str(keys), "issuer": "https://id.example", "audience": ["shop"]}}]}


def trusting(authority, **more):
    return {**NO_PROXY, "SSL_CERT_FILE": str(authority.file), **more}


def bearer(token):
    return [("Authorization", "Bearer " + token)]


def ask(gateway, key, **more):
    return gateway.request("GET", "/", bearer(key.token(claims(**more)))).status


def error_of(gateway, key):
    got = gateway.request("GET", "/", bearer(key.token(claims())))
    return got.status, got.get("stateway-error")


def lines(gateway, text):
    return [line for line in gateway.log().splitlines() if text in line]


def metric(gateway, name, **labels):
    text = gateway.admin("GET", "/metrics").body.decode()
    inside = ",".join(f'{k}="{v}"' for k, v in labels.items())
    wanted = name + ("{" + inside + "} " if inside else " ")
    found = [line for line in text.splitlines() if line.startswith(wanted)]
    assert len(found) == 1, (wanted, found)
    return float(found[0].rsplit(" ", 1)[1])


# ---- files ----


def replace(path, text):
    aside = path.with_suffix(".new")
    aside.write_text(text)
    os.rename(aside, path)


def test_a_file_is_read_again_when_it_is_replaced(gateway, app, tmp_path):
    path, old, new = tmp_path / "keys.json", Key("ES256", "old"), Key("Ed25519", "new")
    path.write_text(json.dumps(jwks(old)))
    g = gateway(config(app, path))
    assert ask(g, old) == 200
    assert error_of(g, new) == (401, "token-kid")
    replace(path, json.dumps(jwks(new)))
    wait_for(lambda: ask(g, new) == 200, 5)
    assert ask(g, old) == 200, "a key that was taken out is kept for a while"
    assert metric(g, "stateway_keyset_keys", source=path, state="current") == 1
    assert metric(g, "stateway_keyset_keys", source=path, state="kept") == 1
    assert metric(g, "stateway_keyset_failures_total", source=path) == 0
    assert len(lines(g, "changed: 1 key, and 1 of before")) == 1


def test_a_file_that_is_half_written_changes_nothing(gateway, app, tmp_path):
    path, old, new = tmp_path / "keys.json", Key("ES256", "old"), Key("HS256", "new", os.urandom(32))
    path.write_text(json.dumps(jwks(old)))
    g = gateway(config(app, path))
    whole = json.dumps(jwks(new))
    path.write_text(whole[:len(whole) // 2])
    wait_for(lambda: lines(g, "the keys that were read before stand"), 5)
    time.sleep(4.5)  # it is looked at two times more
    assert len(lines(g, "keys of")) == 2
    assert ask(g, old) == 200
    assert metric(g, "stateway_keyset_failures_total", source=path) >= 2
    path.write_text(whole)
    wait_for(lambda: ask(g, new) == 200, 5)
    assert len(lines(g, "could be read again")) == 1
    assert error_of(g, old) == (401, "token-kid"), "no public key is kept beside secrets"
    assert b64(new.secret) not in g.log() and b64(new.secret)[:20] not in g.log()


@pytest.mark.parametrize("text, why", [(None, "No such file"), ("", "not a well-formed JWK set"),
                                       ('{"keys":[]}', "no key of the key set can be used")],
                         ids=["missing", "garbage", "empty"])
def test_a_file_that_cannot_be_read_is_an_error_of_the_start(gateway, app, tmp_path, text, why):
    path = tmp_path / "keys.json"
    if text is not None:
        path.write_text(text)
    g = gateway(config(app, path), ready=False)
    assert g.wait() != 0
    assert why in g.log() and str(path) in g.log() and "must hold a JWK set" in g.log()


# ---- https ----


def test_https_with_an_authority_of_ones_own(gateway, app, authority, issuer):
    key = Key("ES256")
    made = issuer(jwks(key), authority.certificate())
    g = gateway(config(app, made.url), env=trusting(authority))
    assert ask(g, key) == 200
    assert made.count == 1
    path, headers = made.fetches[0]
    assert path == "/keys" and headers["User-Agent"].startswith("stateway/")
    assert not {"Authorization", "Cookie"} & set(headers)
    for _ in range(20):
        assert ask(g, key) == 200
    assert made.count == 1
    assert metric(g, "stateway_keyset_fetches_total", source=made.url) == 1
    assert abs(metric(g, "stateway_keyset_good_time_seconds", source=made.url) - time.time()) < 60
    token = key.token(claims())
    misses = metric(g, "stateway_token_cache_misses_total")
    for _ in range(20):
        assert g.request("GET", "/", bearer(token)).status == 200
    assert metric(g, "stateway_token_cache_misses_total") - misses <= 2, "one for each worker"
    assert metric(g, "stateway_token_cache_hits_total") >= 18


@pytest.mark.parametrize("names, days, trusted, why", [
    (("localhost",), 30, False, "certificate"),
    (("other.example",), 30, True, "no alternative certificate subject name matches"),
    (("localhost",), -10, True, "certificate has expired"),
], ids=["unknown", "name", "old"])
def test_a_certificate_that_is_none(gateway, app, authority, issuer, names, days, trusted, why):
    key = Key("ES256")
    made = issuer(jwks(key), authority.certificate(names, days))
    g = gateway(config(app, made.url), env=trusting(authority) if trusted else NO_PROXY)
    assert error_of(g, key) == (503, "token-keys")
    wait_for(lambda: metric(g, "stateway_keyset_failures_total", source=made.url) >= 2)
    said = lines(g, "keys of")
    assert len(said) == 1 and why in said[0] and "503" in said[0]
    assert made.count == 0


def redirect(to):
    def respond(handler):
        handler.send_response(302)
        handler.send_header("Location", to)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
    return respond


def test_redirects(gateway, app, authority, issuer):
    """At most three, and from https to https only."""
    key = Key("ES256")
    made, plain = issuer(jwks(key), authority.certificate()), issuer(jwks(key))
    for i in range(4):
        made.paths[f"/{i}"] = redirect(made.origin + (f"/{i - 1}" if i > 0 else "/keys"))
    made.paths["/down"] = redirect(plain.url)
    made.paths["/file"] = redirect("file:///etc/passwd")
    for path, good in (("/2", True), ("/3", False), ("/down", False), ("/file", False)):
        g = gateway(config(app, made.origin + path), env=trusting(authority))
        assert ask(g, key) == (200 if good else 503), path
    assert plain.count == 0


def test_http_is_for_this_machine(gateway, app, issuer):
    key = Key("ES256")
    made = issuer(jwks(key))
    elsewhere = socket.socket()
    elsewhere.bind(("127.0.0.1", 0))  # nobody listens: a proxy that is not asked
    nowhere = f"http://127.0.0.1:{elsewhere.getsockname()[1]}"
    g = gateway(config(app, made.url), env={**NO_PROXY, "http_proxy": nowhere, "ALL_PROXY": nowhere})
    assert ask(g, key) == 200
    elsewhere.close()


def test_https_goes_by_the_proxy_of_the_environment(gateway, app, authority, issuer):
    """It sees a name and a port, and bytes it cannot read."""
    key, asked = Key("ES256"), []
    made = issuer(jwks(key), authority.certificate(("id.example",)))

    def proxy(request, raw):
        asked.append((request.method, request.target))
        raw.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(("127.0.0.1", made.port)) as there:
            def back():
                while data := there.recv(65536):
                    raw.socket.sendall(data)
            thread = threading.Thread(target=back)
            thread.start()
            try:
                while data := raw.socket.recv(65536):
                    there.sendall(data)
                there.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            thread.join(5)

    with Origin(proxy) as origin:
        g = gateway(config(app, "https://id.example/keys"),
                    env=trusting(authority, HTTPS_PROXY="http://" + origin.address))
        assert ask(g, key) == 200
        assert asked == [("CONNECT", "id.example:443")]


def test_secrets_are_not_taken_from_the_world(gateway, app, authority, issuer):
    """A set of public keys that is signed against as if it were a secret, or that has one: RFC 8725, 2.1."""
    secret, key = Key("HS256", "s", os.urandom(32)), Key("ES256")
    made = issuer(jwks(secret, key), authority.certificate())
    g = gateway(config(app, made.url), env=trusting(authority))
    assert ask(g, key) == 200
    assert ask(g, secret) == 401
    assert b64(secret.secret) not in g.log()


# ---- rotation, failures, floods ----


def test_a_new_key_is_fetched_when_a_token_names_it(gateway, app, authority, issuer):
    """One fetch for all who wait; nobody is refused; the old key goes on for a while."""
    old, new = Key("ES256", "old"), Key("Ed25519", "new")
    made = issuer(jwks(old), authority.certificate())
    g = gateway(config(app, made.url), env=trusting(authority))
    assert ask(g, old) == 200
    made.set, made.delay = jwks(new), 0.5
    seen = []

    def one():
        seen.append(ask(g, new))

    threads = [threading.Thread(target=one) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [200] * 50
    assert made.count == 2
    assert ask(g, old) == 200
    assert metric(g, "stateway_keyset_keys", source=made.url, state="kept") == 1


@pytest.mark.parametrize("status, body, why", [
    (500, b"", "status 500"),
    (200, b"<html>we are sorry</html>", "not a well-formed JWK set"),
    (200, b'{"keys":[]}', "no key of the key set can be used"),
    (200, b" " * (256 * 1024 + 1), "longer than the limit"),
    (None, b"", "timed out"),
], ids=["status", "garbage", "empty", "large", "slow"])
def test_the_last_good_set_stands(gateway, app, authority, issuer, status, body, why):
    old, other = Key("ES256", "old"), Key("ES256", "other")
    made = issuer(jwks(old), authority.certificate())
    g = gateway(config(app, made.url), env=trusting(authority))
    assert ask(g, old) == 200
    made.status, made.set = status or 200, body
    made.delay = FETCH_S + 2 if status is None else 0
    began = time.monotonic()
    assert error_of(g, other) == (401, "token-kid")
    assert time.monotonic() - began < FETCH_S + 3
    assert ask(g, old) == 200
    wait_for(lambda: metric(g, "stateway_keyset_failures_total", source=made.url) >= 2)
    said = lines(g, "the keys that were read before stand")
    assert len(said) == 1 and why in said[0]
    made.status, made.set, made.delay = 200, jwks(old, other), 0
    wait_for(lambda: ask(g, other) == 200, 2 * AGAIN_S + FETCH_S)
    assert len(lines(g, "could be read again")) == 1


def test_an_issuer_that_comes_later(gateway, app, authority, issuer):
    """The gateway starts without it, says 503, and goes on by itself when it is there."""
    key = Key("ES256")
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
    probe.close()
    g = gateway(config(app, f"https://localhost:{port}/keys"), env=trusting(authority))
    assert error_of(g, key) == (503, "token-keys")
    issuer(jwks(key), authority.certificate(), port=port)
    wait_for(lambda: ask(g, key) == 200, 15)


def resident(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))


def test_a_flood_of_unknown_keys(gateway, app, authority, issuer):
    """10,000 tokens with random key ids: as many fetches as time allows, no memory, and others are served."""
    key, stranger = Key("ES256"), Key("HS256", "x")
    made = issuer(jwks(key), authority.certificate())
    g = gateway(config(app, made.url), env=trusting(authority))
    assert ask(g, key) == 200
    before, began, statuses = resident(g.gateway_pid()), time.monotonic(), []

    def flood():
        with g.connect(timeout=60) as raw:
            for _ in range(100):
                batch = b"".join(
                    request_bytes("GET", "/", bearer(stranger.token(claims(), {"kid": os.urandom(9).hex()})))
                    for _ in range(25))
                raw.send(batch)
                statuses.extend(raw.read().status for _ in range(25))

    threads = [threading.Thread(target=flood) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert ask(g, key) == 200
        time.sleep(0.1)
    took = time.monotonic() - began
    assert len(statuses) == 10000 and set(statuses) == {401}
    assert 2 <= made.count <= 2 + took / AGAIN_S, (made.count, took)
    assert metric(g, "stateway_keyset_refused_total", source=made.url) > 9000
    if not sanitized():
        assert resident(g.gateway_pid()) - before < 16 * 1024
    assert len(lines(g, "keys of")) == 1


def test_the_end_while_tokens_wait_for_keys(gateway, app, authority, issuer):
    key, other = Key("ES256"), Key("ES256", "other")
    made = issuer(jwks(key), authority.certificate())
    g = gateway({**config(app, made.url), "timeouts": {"stop": "1s"}}, env=trusting(authority))
    made.delay = 3
    with g.connect() as raw:
        raw.send(request_bytes("GET", "/", bearer(other.token(claims()))))
        wait_for(lambda: made.count == 2)
        began = time.monotonic()
        assert g.stop() == 0
        assert time.monotonic() - began < 10
    g.check()


def test_a_client_that_does_not_wait_for_keys(gateway, app, authority, issuer):
    key, other = Key("ES256"), Key("ES256", "other")
    made = issuer(jwks(key), authority.certificate())
    g = gateway(config(app, made.url), env=trusting(authority))
    made.delay, made.set = 1, jwks(key, other)
    for _ in range(20):
        raw = Raw(g.address)
        raw.send(request_bytes("GET", "/", bearer(other.token(claims()))))
        time.sleep(0.02)
        raw.reset()
    wait_for(lambda: ask(g, other) == 200)
    assert made.count == 2


def test_two_sources_that_look_alike(gateway, app, issuer):
    """What stands behind ? is not shown, and two series are two series."""
    key = Key("ES256")
    made = issuer(jwks(key))
    both = config(app, made.url + "?tenant=secret-a")
    both["routes"].append({**config(app, made.url + "?tenant=secret-b")["routes"][0], "path": "/b/*"})
    g = gateway(both, env=NO_PROXY)
    assert metric(g, "stateway_keyset_fetches_total", source=made.url) == 1
    assert metric(g, "stateway_keyset_fetches_total", source=made.url + "#2") == 1
    assert "secret-" not in g.log()
