"""A held port is free for those who name it, and for nobody else."""

from __future__ import annotations

import errno
import socket

import pytest
import torch.distributed as dist

from moss_train.parallel.ports import hold_port


def _listen(port: int, *, reuse: bool) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
    try:
        listener.bind(("", port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def test_store_listens_on_a_held_port() -> None:
    with hold_port() as port:
        store = dist.TCPStore("127.0.0.1", port, world_size=1, is_master=True)
        store.set("key", "value")
        assert dist.TCPStore("127.0.0.1", port, world_size=1, is_master=False).get("key") == b"value"
        with pytest.raises(dist.DistNetworkError, match="EADDRINUSE"):  # the store itself keeps others away
            dist.TCPStore("127.0.0.1", port, world_size=1, is_master=True)


def test_nobody_else_is_given_a_held_port() -> None:
    with hold_port() as port, hold_port() as other:
        assert port != other
        with pytest.raises(OSError, match="in use") as error:
            _listen(port, reuse=False)
        assert error.value.errno == errno.EADDRINUSE


def test_port_is_free_afterwards() -> None:
    with hold_port() as port:
        pass
    with _listen(port, reuse=False) as listener:
        assert listener.getsockname()[1] == port
