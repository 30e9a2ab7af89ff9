"""Objects with large arrays handed from a process to the one that started it, through memory that both can see.

Everything travels in a nameless file in memory whose descriptor is part of the message. So the sender never waits for the
receiver, what was sent can be received after the sender's death, and the size of /dev/shm does not matter.
"""

from __future__ import annotations

import mmap
import os
import pickle
import socket
import struct
from typing import Any

_ALIGNMENT = 64
_HEADER = struct.Struct("=Q")


def channel() -> tuple[socket.socket, socket.socket]:
    """Two ends of a channel that keeps messages whole."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, message: Any) -> None:
    """Send a picklable object; numpy arrays in it are copied once, into the shared memory."""
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(message, 5, buffer_callback=buffers.append)
    pieces = [memoryview(content), *(buffer.raw() for buffer in buffers)]
    sizes = [piece.nbytes for piece in pieces]
    table = pickle.dumps(sizes)
    descriptor = os.memfd_create("moss-message", os.MFD_CLOEXEC)
    try:
        place = 0
        for piece in [memoryview(_HEADER.pack(len(table)) + table), *pieces]:
            _write(descriptor, piece, place)
            place = _aligned(place + piece.nbytes)
        os.ftruncate(descriptor, place)
        socket.send_fds(end, [b"m"], [descriptor])
    finally:
        os.close(descriptor)


def receive(end: socket.socket) -> Any:
    """The next message; its arrays lie in the shared memory, which is freed with the last of them.

    Raises:
        EOFError: the sender is gone and everything that it sent was received.
    """
    try:
        mark, descriptors, _, _ = socket.recv_fds(end, 1, 1)
    except ConnectionResetError:
        raise EOFError from None
    if not mark:
        raise EOFError
    (descriptor,) = descriptors
    try:
        memory = memoryview(mmap.mmap(descriptor, 0))
    finally:
        os.close(descriptor)
    (length,) = _HEADER.unpack_from(memory)
    place = _HEADER.size + length
    pieces = []
    for size in pickle.loads(memory[_HEADER.size : place]):
        place = _aligned(place)
        pieces.append(memory[place : place + size])
        place += size
    return pickle.loads(pieces[0], buffers=pieces[1:])


def _write(descriptor: int, piece: memoryview, place: int) -> None:
    while piece.nbytes:
        written = os.pwrite(descriptor, piece, place)
        piece, place = piece[written:], place + written


def _aligned(place: int) -> int:
    return -(-place // _ALIGNMENT) * _ALIGNMENT
