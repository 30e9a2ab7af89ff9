"""The time limit over real sockets: whatever drips, an attempt ends with it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from data_pipeline.generator.backends.chat import EndpointDown
from data_pipeline.generator.backends.open import open_backend
from tests.data_pipeline.generator.backends.requests import request

LIMIT = 0.3


@contextlib.contextmanager
def talking(script: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """A server that talks as a script does, however wrong that is; gives its address."""
    stop = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            script(connection, stop)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            stop.set()


def dripping(head: bytes, drop: bytes) -> Callable[[socket.socket, threading.Event], None]:
    def script(connection: socket.socket, stop: threading.Event) -> None:
        connection.sendall(head)
        while not stop.wait(0.02):
            connection.sendall(drop)

    return script


LENGTH = b"content-length: 100000\r\n\r\n"
# The header of a packed body whose file name does not end: no byte of the answer ever comes of it.
PACKED = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n" + LENGTH + b"\x1f\x8b\x08\x08\0\0\0\0\0\x03"


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n"),
        (b"HTTP/1.1 200 OK\r\n" + LENGTH, b"x"),
        (b"HTTP/1.1 429 Slow\r\n" + LENGTH, b"x"),
        (b"HTTP/1.1 500 Oops\r\n" + LENGTH, b"x"),
        (PACKED, b"n"),
    ],
    ids=["headers", "body", "429", "500", "gzip"],
)
def test_nothing_that_drips_passes_the_time_limit(head: bytes, drop: bytes) -> None:
    with talking(dripping(head, drop)) as url:
        asked = open_backend({"base_url": url, "model": "m", "timeout": LIMIT, "retries": 0})
        begin = time.monotonic()
        with pytest.raises(EndpointDown):
            asked.complete(request())
        assert time.monotonic() - begin < LIMIT + 1.0


def test_an_endless_failure_is_not_read_to_its_end() -> None:
    sent = 0

    def endless(connection: socket.socket, stop: threading.Event) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 500 Oops\r\ntransfer-encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        while not stop.is_set() and sent < 200_000_000:
            connection.sendall(piece)
            sent += 65536

    with talking(endless) as url:
        asked = open_backend({"base_url": url, "model": "m", "timeout": 5.0, "retries": 0})
        with pytest.raises(EndpointDown, match="status 500"):
            asked.complete(request())
    assert sent < 20_000_000  # what fits into the buffers of two sockets may have been sent
