"""The metrics of all nodes of docker-compose.yml, for Prometheus: `python -m interop.compose.scrape --state DIR`.

    GET /targets             the nodes that run, as Prometheus' http_sd_configs want them
    GET /metrics?node=NAME   one node's metrics, by its control socket DIR/NAME/control.sock

A node's own /metrics is on loopback, where a container of its own doesn't get; with a certificate and a token it could
be elsewhere. Read only, and for the network that compose makes: nothing else should reach it.
"""

from __future__ import annotations

import argparse
import json
import re
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from node.api.client import Client
from node.errors import VouchError

SOCKET = "control.sock"
TIMEOUT = 5.0
TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Handler(BaseHTTPRequestHandler):
    """One request of Prometheus'."""

    timeout = TIMEOUT
    protocol_version = "HTTP/1.1"

    def __init__(self, state: Path, *request: object) -> None:
        self.state = state
        super().__init__(*request)  # type: ignore[arg-type]  # as the server gives it

    def do_GET(self) -> None:
        """Answers."""
        asked = urlsplit(self.path)
        if asked.path == "/targets":
            nodes = sorted(path.parent.name for path in self.state.glob(f"*/{SOCKET}"))
            self._answer(200, json.dumps([{"targets": nodes}] if nodes else []), "application/json")
            return
        name = parse_qs(asked.query).get("node", [""])[0]
        if asked.path != "/metrics" or not re.fullmatch(r"\w[\w.-]*", name):
            self._answer(404, "expected /targets, or /metrics?node=NAME\n", TEXT)
            return
        try:
            with Client(self.state / name / SOCKET, timeout=TIMEOUT) as client:
                self._answer(200, client.call("metrics")["text"], TEXT)
        except (VouchError, OSError) as error:
            self._answer(503, f"{error}\n", TEXT)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: Prometheus tells what failed."""

    def _answer(self, status: int, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def server(state: Path, host: str, port: int) -> ThreadingHTTPServer:
    """Listens; `serve_forever` answers."""
    made = ThreadingHTTPServer((host, port), partial(Handler, state))
    made.daemon_threads = True
    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="interop.compose.scrape", description="Metrics of all nodes in a folder.")
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="the folder of their data folders")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9780, help="(default: %(default)s)")
    args = parser.parse_args()
    with suppress(KeyboardInterrupt):
        server(args.state, args.host, args.port).serve_forever()


if __name__ == "__main__":
    main()
