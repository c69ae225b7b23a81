"""For gunicorn and waitress: says what was understood."""
import hashlib
import json


def app(environ, start_response):
    body = environ["wsgi.input"].read() if "HTTP_TRANSFER_ENCODING" in environ else \
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    said = {"method": environ["REQUEST_METHOD"], "path": environ["PATH_INFO"], "query": environ.get("QUERY_STRING", ""),
            "host": environ.get("HTTP_HOST"), "a": environ.get("HTTP_X_A"), "length": len(body),
            "sha256": hashlib.sha256(body).hexdigest()}
    data = json.dumps(said).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [data]
