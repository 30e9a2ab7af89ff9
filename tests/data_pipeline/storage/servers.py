"""Real servers on this machine: a web server with range requests, an S3 server, and a proxy that misbehaves."""

from __future__ import annotations

import http.client
import logging
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

FAULTS = ("reset", "slow", "busy", "short", "drip", "mute")
_Server = TypeVar("_Server", bound=ThreadingHTTPServer)


class _Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def handle(self) -> None:
        with suppress(OSError):  # the client gave up, as it should
            super().handle()

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()


class _Files(_Quiet):
    """Serves a folder; with `ranges` off the way Python's own server does."""

    server: WebServer

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Range")))
        if self.path in self.server.held:
            self.server.released.wait(60)
        if self.server.login and self.headers.get("Authorization") != self.server.login:
            return self.answer(401, b"who?")
        path = self.server.folder / unquote(self.path).lstrip("/")
        if self.path in self.server.denied:
            return self.answer(403, b"no")
        if not path.is_file():
            return self.answer(404, b"gone")
        content = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if self.server.ranges else None
        if not asked:
            return self.answer(200, content)
        first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
        if first >= len(content):
            return self.answer(416, b"", Content_Range=f"bytes */{len(content)}")
        tag = f'"{path.stat().st_mtime_ns}"'
        return self.answer(206, content[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(content)}", ETag=tag)


class WebServer(ThreadingHTTPServer):
    """A folder on http://127.0.0.1:PORT."""

    daemon_threads = True

    def __init__(self, folder: Path, ranges: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Files)
        self.folder, self.ranges = folder, ranges
        self.denied: set[str] = set()
        self.login: str | None = None
        self.requests: list[tuple[str, str | None]] = []
        self.held: set[str] = set()
        """What is not answered before `released` is set."""
        self.released = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Forward(_Quiet):
    server: FlakyProxy

    def do_GET(self) -> None:
        server = self.server
        fault = server.next_fault()
        if fault == "busy":
            return self.answer(503, b"come back later")
        if fault == "mute":
            self.close_connection = True
            return time.sleep(server.slow_seconds)
        upstream = http.client.HTTPConnection("127.0.0.1", server.upstream)
        upstream.request(self.command, self.path, headers=dict(self.headers.items()))
        response = upstream.getresponse()
        content = response.read()
        upstream.close()
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.end_headers()
        return self._send(content, fault)

    do_HEAD = do_GET

    def _send(self, content: bytes, fault: str | None) -> None:
        if fault is None:
            self.wfile.write(content)
            return
        self.close_connection = True
        self.wfile.write(content[: len(content) // 2])
        if fault == "slow":
            time.sleep(self.server.slow_seconds)
        elif fault == "drip":
            end = time.monotonic() + self.server.slow_seconds
            for byte in content[len(content) // 2 :]:
                if time.monotonic() > end:
                    break
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class FlakyProxy(ThreadingHTTPServer):
    """Stands before a server and spoils some answers, chosen by a seed.

    reset: the connection is cut in the middle of the body; slow: no bytes for long; drip: single bytes for long; busy: 503;
    short: fewer bytes than announced; mute: no answer at all.
    """

    daemon_threads = True

    def __init__(self, upstream: int, chance: float, faults: tuple[str, ...], slow_seconds: float, seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.upstream, self.chance, self.faults, self.slow_seconds = upstream, chance, faults, slow_seconds
        self.seen: Counter[str | None] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def next_fault(self) -> str | None:
        with self._lock:
            fault = self._random.choice(self.faults) if self._random.random() < self.chance else None
            self.seen[fault] += 1
            return fault

    def shutdown_request(self, request: Any) -> None:
        try:  # a polite end would hide the reset
            if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) != struct.pack("ii", 1, 0):
                request.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self.close_request(request)


@contextmanager
def serving(server: _Server) -> Iterator[_Server]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def s3_server() -> Iterator[int]:
    """Port of a server of S3 that keeps objects in memory."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()[1]
    finally:
        server.stop()


def client(port: int) -> Any:
    """For writing to the server of S3."""
    import boto3

    address = f"http://127.0.0.1:{port}"
    return boto3.client(
        "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
    )


def upload(port: int, bucket: str, prefix: str, folder: Path) -> None:
    """All files of a folder as objects."""
    writer = client(port)
    writer.create_bucket(Bucket=bucket)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            writer.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder)}")
