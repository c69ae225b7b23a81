"""An origin that writes down, byte for byte, what reached it, with a reader of its own that forgives nothing.

Its reader is another program than the gateway's: bytes in, (method, target, fields, body) out, and a
complaint for everything that a second reader could take differently.
"""
import contextlib
import re
import socket
import threading

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
LINE = re.compile(rb"(%s) (\S+) HTTP/1\.1" % TOKEN)
FIELD = re.compile(rb"(%s):[ ]?([^\x00-\x08\x0a-\x1f\x7f]*)" % TOKEN)


class Wrong(Exception):
    """What came is not exactly one request of one meaning."""


class Seen:
    def __init__(self, method, target, fields, body, trailers, connection, raw):
        self.method, self.target, self.fields, self.body = method, target, fields, body
        self.trailers, self.connection, self.raw = trailers, connection, raw

    def all(self, name):
        return [v for n, v in self.fields if n.lower() == name]

    def __repr__(self):
        return f"<{self.method} {self.target} {self.fields} {self.body!r}>"


def fields_of(lines):
    fields = []
    for line in lines:
        match = FIELD.fullmatch(line)
        if not match or match[2] != match[2].strip(b" \t"):
            raise Wrong(f"header line {line!r}")
        fields.append((match[1].decode(), match[2].decode("latin-1")))
    return fields


def framing_of(fields):
    """("none" | "length" | "chunked", length)."""
    framing = "none", 0
    for name, value in fields:
        plain = re.sub("[^a-z]", "", name.lower())
        if plain not in ("contentlength", "transferencoding"):
            continue
        if framing[0] != "none":
            raise Wrong(f"a second framing field: {fields}")
        if name == "Content-Length" and re.fullmatch("0|[1-9][0-9]*", value):
            framing = "length", int(value)
        elif name == "Transfer-Encoding" and value == "chunked":
            framing = "chunked", 0
        else:
            raise Wrong(f"framing field {name!r}: {value!r}")
    return framing


class Reader:
    """One connection's bytes, taken apart."""

    def __init__(self, connection):
        self.connection, self.buffer, self.came = connection, b"", b""

    def more(self):
        data = self.connection.recv(65536)
        if not data:
            raise EOFError
        self.buffer += data
        self.came += data

    def line(self, limit=65536):
        while b"\r\n" not in self.buffer:
            if len(self.buffer) > limit:
                raise Wrong("endless line")
            self.more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        if b"\n" in line or b"\r" in line or b"\0" in line:
            raise Wrong(f"control byte in line {line!r}")
        return line

    def exactly(self, count):
        while len(self.buffer) < count:
            self.more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def lines(self):
        found = []
        while True:
            line = self.line()
            if not line:
                return found
            found.append(line)

    def request(self, number):
        self.came = self.buffer
        if not self.buffer:
            self.more()
        first = self.line()
        match = LINE.fullmatch(first)
        if not match:
            raise Wrong(f"request line {first!r}")
        fields = fields_of(self.lines())
        if len([n for n, _ in fields if n.lower() == "host"]) != 1:
            raise Wrong(f"Host: {fields}")
        framing, length = framing_of(fields)
        body, trailers = b"", []
        if framing == "length":
            body = self.exactly(length)
        elif framing == "chunked":
            while True:
                size = self.line()
                if not re.fullmatch(rb"[0-9a-f]+", size):
                    raise Wrong(f"chunk size {size!r}")
                if int(size, 16) == 0:
                    break
                body += self.exactly(int(size, 16))
                if self.exactly(2) != b"\r\n":
                    raise Wrong("behind a chunk")
            trailers = fields_of(self.lines())
        return Seen(match[1].decode(), match[2].decode("latin-1"), fields, body, trailers, number,
                    self.came[:len(self.came) - len(self.buffer)])


class Recorder:
    """seen: all complete requests in order. wrong: complaints. reply(seen) gives the answer's body."""

    def __init__(self, reply=None):
        self.reply = reply or (lambda seen: seen.body if seen.method == "POST" and seen.body else b"OK")
        self.seen, self.wrong, self.open = [], [], set()
        self.lock = threading.Lock()
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(256)
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        self.count = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for one in [self.socket, *self.open]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def take(self):
        """What was seen since the last take."""
        with self.lock:
            seen, self.seen = self.seen, []
            return seen

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                self.open.add(connection)
                self.count += 1
                threading.Thread(target=self._serve, args=(connection, self.count), daemon=True).start()

    def _serve(self, connection, number):
        reader = Reader(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while True:
                seen = reader.request(number)
                with self.lock:
                    self.seen.append(seen)
                body = self.reply(seen)
                head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body)
                connection.sendall(head + (b"" if seen.method == "HEAD" else body))
        except Wrong as e:
            with self.lock:
                self.wrong.append(str(e))
        except (OSError, EOFError):
            pass  # cut in the middle of a request: that is no request
        finally:
            self.open.discard(connection)
            connection.close()
