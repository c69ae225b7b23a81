"""An issuer of tokens: publishes its keys over https, with an authority of its own, or over http; does as it is told."""
import datetime
import http.server
import ipaddress
import json
import ssl
import threading
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# What of the environment would lead a fetch elsewhere.
NO_PROXY = {name: "" for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY",
                                  "no_proxy", "NO_PROXY")}


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption())


class Authority:
    """Makes certificates. file: its own one, for SSL_CERT_FILE."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _name("an authority for tests")
        self.file = folder / "ca.pem"
        made = self._builder(self.name, self.key.public_key(), 30).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.file.write_bytes(self._signed(made))

    def _builder(self, subject, public, days):
        now = datetime.datetime.utcnow()
        return (x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(public)
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - datetime.timedelta(days=60))
                .not_valid_after(now + datetime.timedelta(days=days)))

    def _signed(self, builder):
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def certificate(self, names=("localhost",), days=30):
        """A file with a key and its certificate. days: negative: it ended so long ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n)
                        for n in names]
        made = self._builder(_name(names[0]), key.public_key(), days).add_extension(
            x509.SubjectAlternativeName(alternatives), critical=False)
        self.count += 1
        path = self.folder / f"certificate-{self.count}.pem"
        path.write_bytes(_pem(key) + self._signed(made))
        return path


class Issuer:
    """A server of one key set.

    set      what it publishes: a JWK set, or bytes.
    status, headers, delay   how.
    paths    {"/a": function(handler)}: other paths do other things.
    fetches  the requests it got.
    """

    def __init__(self, keys, certificate=None, port=0):
        self.set, self.status, self.headers, self.delay = keys, 200, {}, 0
        self.paths, self.fetches, self.lock = {}, [], threading.Lock()
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                with issuer.lock:
                    issuer.fetches.append((self.path, dict(self.headers)))
                if self.path in issuer.paths:
                    issuer.paths[self.path](self)
                    return
                time.sleep(issuer.delay)
                body = issuer.set if isinstance(issuer.set, bytes) else json.dumps(issuer.set).encode()
                try:
                    self.send_response(issuer.status)
                    for name, value in issuer.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    pass

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # clients that do not like the certificate

        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True,
                                                     do_handshake_on_connect=False)
        self.origin = f"{'https' if certificate else 'http'}://localhost:{self.port}"
        self.url = self.origin + "/keys"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    @property
    def count(self):
        with self.lock:
            return len(self.fetches)
