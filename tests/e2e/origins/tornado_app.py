"""Says what was understood."""
import hashlib
import json
import sys

import tornado.httpserver
import tornado.ioloop


def handle(request):
    said = {"method": request.method, "raw": request.uri, "host": request.headers.get("Host"),
            "a": request.headers.get("X-A"), "length": len(request.body or b""),
            "sha256": hashlib.sha256(request.body or b"").hexdigest()}
    data = json.dumps(said).encode()
    head = tornado.httputil.HTTPHeaders({"Content-Length": str(len(data))})
    request.connection.write_headers(tornado.httputil.ResponseStartLine("HTTP/1.1", 200, "OK"), head,
                                     b"" if request.method == "HEAD" else data)
    request.connection.finish()


tornado.httpserver.HTTPServer(handle).listen(int(sys.argv[1]), "127.0.0.1")
tornado.ioloop.IOLoop.current().start()
