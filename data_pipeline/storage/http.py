"""Files of a web server that answers range requests."""

from __future__ import annotations

import netrc
import os
import re
import time
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationValueError,
    MaxRetryError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from data_pipeline.storage.errors import AbsentError, StorageError
from data_pipeline.storage.patience import PassingFault
from data_pipeline.storage.ranges import Part

_MIB = 1024 * 1024
_PIECE = 64 * 1024
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)")


class HttpStore:
    """A host. Every read is one range request, whose length is checked."""

    denied_remedy = "check the permissions there and the entry of the host in ~/.netrc"

    def __init__(self, root: str, timeout_seconds: float) -> None:
        """
        Args:
            root: scheme and host.
            timeout_seconds: longest wait for the connection, for the next byte, and for each MiB.
        """
        self._root = root
        self._timeout = timeout_seconds
        self._pool: urllib3.PoolManager | None = None
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "moss-train"}

    def part(self, key: str, offset: int, size: int) -> Part:
        """See `Store.part`."""
        address = f"{self._root}/{key}"
        url = self._url(key, address)
        if self._pool is None:
            self._pool = self._connect()
        headers = {**self._headers, "Range": f"bytes={offset}-{offset + size - 1}"}
        try:
            response = self._pool.request("GET", url, headers=headers, preload_content=False)
        except HTTPError as error:
            raise self._fault(error, address) from error
        try:
            part = self._answer(response, address, offset, size)
        except BaseException:
            response.close()  # what is left of the answer must not be taken for the next one
            raise
        response.release_conn()
        return part

    def _url(self, key: str, address: str) -> str:
        del address
        return f"{self._root}/{quote(key)}"

    def _connect(self) -> urllib3.PoolManager:
        self._headers |= self._login()
        options: dict[str, Any] = {
            "timeout": urllib3.Timeout(connect=self._timeout, read=self._timeout),
            "retries": urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5),
        }
        scheme, _, host = self._root_url().partition("://")
        proxy = getproxies().get(scheme)
        if proxy and not proxy_bypass(host):
            return urllib3.ProxyManager(proxy, **options)
        return urllib3.PoolManager(**options)

    def _root_url(self) -> str:
        return self._root

    def _login(self) -> dict[str, str]:
        try:
            found = netrc.netrc(os.environ.get("NETRC")).authenticators(self._root.partition("://")[2].partition(":")[0])
        except (OSError, netrc.NetrcParseError):
            return {}
        return urllib3.make_headers(basic_auth=f"{found[0]}:{found[2]}") if found else {}

    def _answer(self, response: urllib3.BaseHTTPResponse, address: str, offset: int, size: int) -> Part:
        told = (response.headers.get("ETag"), _time(response.headers.get("Last-Modified")))
        matched = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status == 206 and matched and matched[1]:
            total = int(matched[3])
            if (int(matched[1]), int(matched[2])) != (offset, min(offset + size, total) - 1):
                raise PassingFault(f"the server gave bytes {matched[1]}-{matched[2]} instead of {offset}-{offset + size - 1}")
            return Part(self._body(response, min(size, total - offset)), total, *told)
        if response.status == 416 and matched and offset >= int(matched[3]):
            return Part(b"", int(matched[3]), *told)
        if response.status == 200:
            total = int(response.headers.get("Content-Length", -1))
            if offset == 0 and 0 <= total <= size:
                return Part(self._body(response, total), total, *told)
            raise StorageError(
                f"{address} cannot be read in parts: the server does not answer range requests; "
                "serve the folder from an object store or a server that does, such as nginx"
            )
        raise self._refusal(response, address)

    def _body(self, response: urllib3.BaseHTTPResponse, size: int) -> bytes:
        pieces, got, slow_at = [], 0, time.monotonic() + self._timeout
        while got < size:
            try:
                piece = response.read1(min(_PIECE, size - got), decode_content=False)
            except HTTPError as error:
                raise PassingFault(f"{_words(error, self._timeout)} after {got:,} of {size:,} bytes") from error
            if not piece:
                raise PassingFault(f"the server ended its answer after {got:,} of {size:,} bytes")
            pieces.append(piece)
            if got // _MIB != (got + len(piece)) // _MIB:
                slow_at = time.monotonic() + self._timeout
            elif time.monotonic() > slow_at:
                raise PassingFault(f"the server took more than {self._timeout:g} s for a MiB, {got:,} of {size:,} bytes came")
            got += len(piece)
        return b"".join(pieces)

    def _fault(self, error: HTTPError, address: str) -> Exception:
        reason = error.reason if isinstance(error, MaxRetryError) and error.reason else error
        if isinstance(reason, SSLError):
            return StorageError(f"{address} cannot be read: {reason}; check the certificate of the server")
        if isinstance(reason, LocationValueError):
            return StorageError(f"{address} cannot be read: {reason}; check the address")
        return PassingFault(_words(reason, self._timeout))

    def _refusal(self, response: urllib3.BaseHTTPResponse, address: str) -> Exception:
        status = self._status(response)
        if response.status in (404, 410):
            return AbsentError(f"{address} does not exist ({status}); check the address, or copy the folder there again")
        if response.status in (401, 403):
            return StorageError(f"{address} may not be read ({status}); {self.denied_remedy}")
        if response.status in _PASSING:
            return PassingFault(f"the server answered {status}")
        return StorageError(f"{address} cannot be read: the server answered {status}; check the address")

    def _status(self, response: urllib3.BaseHTTPResponse) -> str:
        return f"{response.status} {response.reason or ''}".strip()


def _time(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text else None
    except ValueError:
        return None


def _words(error: Exception, timeout: float) -> str:
    """A connection's end, in words."""
    if isinstance(error, NewConnectionError):
        return f"no connection ({str(error).rpartition(': ')[2]})"
    if isinstance(error, ConnectTimeoutError):
        return f"no connection within {timeout:g} s"
    if isinstance(error, ReadTimeoutError):
        return f"no bytes for {timeout:g} s"
    return "the connection broke"
