"""Python programs that releases of tests consist of, for targets that run programs."""

from __future__ import annotations

# Answers with {text!r}, which is to be replaced, and at /env with its environment.
APP = """
import json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = (json.dumps(dict(os.environ)) if self.path == "/env" else {text!r}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""
# After SIGTERM it closes each connection with the next answer, as a server should: a client that keeps a
# connection open learns of the end in no other way, and would now and then send a request into a closed one.
ENDS_CONNECTIONS = APP.replace(
    "        self.end_headers()",
    """        if ending.is_set():
            self.send_header("Connection", "close")
        self.end_headers()""",
).replace(
    "\n\nclass Handler",
    """import signal, threading

ending = threading.Event()


def end(*_):
    ending.set()
    threading.Timer(0.5, os._exit, [0]).start()


signal.signal(signal.SIGTERM, end)


class Handler""",
)
# Ends at once, with a reason that a target has to report.
BROKEN = "print('no database'); raise SystemExit(3)"
