"""One deadline for all that an attempt reads and writes, and a bound on what is read of an answer that failed.

The time limits of HTTP clients hold for each read: an endpoint that sends a byte now and then passes them for ever. Here the
time that is left is what each read may take, whatever it is part of: headers, bodies of failures, packed bodies.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import httpcore
import httpx

if TYPE_CHECKING:
    import ssl

MOST_OF_A_FAILURE = 65_536
"""Bytes that are read of a body whose status is no success."""
_PIECE = 65_536
_LOCAL = threading.local()


class Failure(Exception):
    """A status that is no success, with what could be read of its body."""

    def __init__(self, status: int, headers: httpx.Headers, body: bytes) -> None:
        super().__init__(f"status {status}")
        self.status, self.headers, self.body = status, headers, body


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Bound everything that this thread sends and receives through a client of `bounded_client`."""
    _LOCAL.end = time.monotonic() + seconds
    try:
        yield
    finally:
        _LOCAL.end = None


def bounded_client(timeout: float) -> httpx.Client:
    """A client that keeps to `within` and raises `Failure` for a status that is no success; it follows no redirect.

    Finding the address of a host's name is left to the system, which has limits of its own.
    """
    client = httpx.Client(timeout=timeout, follow_redirects=False, event_hooks={"response": [_raise_failure]})
    # The client's own transports know proxies and certificates of the environment; the pools below them have no public
    # place for a backend of ours.
    for transport in [client._transport, *client._mounts.values()]:
        if isinstance(transport, httpx.HTTPTransport):
            pool: Any = transport._pool
            pool._network_backend = _Backend(pool._network_backend)
    return client


def _raise_failure(response: httpx.Response) -> None:
    if response.is_success:
        return
    body = b""
    with contextlib.suppress(httpx.HTTPError):  # the status tells enough where its body cannot be read
        for piece in response.iter_bytes():
            body += piece
            if len(body) >= MOST_OF_A_FAILURE:
                break
    raise Failure(response.status_code, response.headers, body[:MOST_OF_A_FAILURE])


def _left(timeout: float | None, late: type[Exception]) -> float | None:
    """Seconds that an operation may take."""
    end: float | None = getattr(_LOCAL, "end", None)
    if end is None:
        return timeout
    left = end - time.monotonic()
    if left <= 0:
        raise late("the time is over")
    return left if timeout is None else min(timeout, left)


class _Backend(httpcore.NetworkBackend):
    def __init__(self, inner: httpcore.NetworkBackend) -> None:
        self._inner = inner

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.connect_tcp(host, port, left, local_address, socket_options))

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.connect_unix_socket(path, _left(timeout, httpcore.ConnectTimeout), socket_options))

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for begin in range(0, len(buffer), _PIECE):
            self._inner.write(buffer[begin : begin + _PIECE], _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, _left(timeout, httpcore.ConnectTimeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
