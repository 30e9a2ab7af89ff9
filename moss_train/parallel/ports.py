"""A port kept for somebody who will listen on it later. Imports no torch, so that starting ranks costs nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hold_port() -> Iterator[int]:
    """A free TCP port of this machine that nobody else is given while the context lasts.

    Between choosing a port and rank 0 listening on it lie seconds of imports, in which the system would hand the number to
    any process that asks for a free one. The socket bound here, which never listens, prevents that: Linux lets another
    socket listen beside it only where both set SO_REUSEADDR and the number is named, as torch's TCPStore does.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("", 0))
        port: int = holder.getsockname()[1]
        yield port
