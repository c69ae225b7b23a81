"""A counter that remembers nothing: Stateway-State comes in, Stateway-Set goes out."""
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Counter(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        state = json.loads(self.headers.get("Stateway-State", '{"n":0}'))
        self.send_response(200)
        if self.path == "/":
            state["n"] += 1
            self.send_header("Stateway-Set", json.dumps(state))  # ASCII by default
        answer = f"{state['n']}\n".encode()
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET


ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", 3000))), Counter).serve_forever()
