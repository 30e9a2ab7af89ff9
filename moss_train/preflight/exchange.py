"""The store on the first node over which all nodes talk: JSON under names, and no wait without an end."""

from __future__ import annotations

import json
import socket
import time
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from model.errors import InputError
from moss_train.preflight.place import Place

_LONGEST_PAUSE = 0.05
_CONNECT = timedelta(seconds=20)


class NoAnswerError(Exception):
    """A name was not set in time."""


class LostFirstNodeError(Exception):
    """The store cannot be reached, or is gone."""


class Exchange:
    """A node's connection to the store; the first node keeps the store itself.

    Args:
        place: this node's.
        port: of the store, which is free on the first node.
        seconds: how long to wait for the first node.

    Raises:
        LostFirstNodeError: it was not there by then.
        InputError: on the first node: the port is in use.
    """

    def __init__(self, place: Place, port: int, seconds: float) -> None:
        if place.node != 0:
            _await_port(place.host, port, seconds)
        try:
            self._store = dist.TCPStore(  # type: ignore[attr-defined]
                place.host, port, is_master=place.node == 0, timeout=_CONNECT, wait_for_workers=False
            )
        except (RuntimeError, ValueError) as error:
            if place.node == 0 and "EADDRINUSE" in str(error):
                raise InputError(f"port {port} is in use on node 0 ({place.name}); give another one by --master") from None
            raise LostFirstNodeError(str(error).splitlines()[0]) from None

    def put(self, name: str, content: Any) -> None:
        try:
            self._store.set(name, json.dumps(content))
        except RuntimeError as error:
            raise LostFirstNodeError(str(error).splitlines()[0]) from None

    def get(self, name: str, seconds: float) -> Any:
        """What was put under a name.

        Raises:
            NoAnswerError: nothing by then.
            LostFirstNodeError: the store is gone.
        """
        end, pause = time.monotonic() + seconds, 0.002
        try:
            while not self.has(name):
                if time.monotonic() > end:
                    raise NoAnswerError(name)
                time.sleep(pause)
                pause = min(_LONGEST_PAUSE, 1.5 * pause)
            return json.loads(self._store.get(name))
        except RuntimeError as error:
            raise LostFirstNodeError(str(error).splitlines()[0]) from None

    def has(self, name: str) -> bool:
        """Whether something was put under a name."""
        try:
            return bool(self._store.check([name]))
        except RuntimeError as error:
            raise LostFirstNodeError(str(error).splitlines()[0]) from None

    def await_at_once(self, name: str, seconds: float) -> None:
        """Return as soon as a name is set, with no pause between: where time is measured.

        Raises:
            NoAnswerError: not set by then.
            LostFirstNodeError: the store is gone.
        """
        try:
            self._store.wait([name], timedelta(seconds=max(0.001, seconds)))
        except dist.DistStoreError:
            raise NoAnswerError(name) from None
        except RuntimeError as error:
            raise LostFirstNodeError(str(error).splitlines()[0]) from None


def _await_port(host: str, port: int, seconds: float) -> None:
    """The store's own way of waiting takes twice as long as it is told, and prints a page of addresses."""
    end, trouble = time.monotonic() + seconds, "no answer"
    while time.monotonic() < end:
        try:
            socket.create_connection((host, port), timeout=max(0.1, min(5.0, end - time.monotonic()))).close()
            return
        except OSError as error:
            trouble = error.strerror or str(error)
            time.sleep(0.1)
    raise LostFirstNodeError(f"{host}:{port}: {trouble}")
