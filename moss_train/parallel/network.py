"""By which of its addresses this host is reached by another one. Imports no torch."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from pathlib import Path

_SIOCGIFADDR = 0x8915
_DISCARD = 9


def own_address(towards: str) -> str | None:
    """This host's address in packets to another one, as its routes have it; None where no route or no such name is known.

    Args:
        towards: name or address of the other host.
    """
    try:
        found = socket.getaddrinfo(towards, _DISCARD, type=socket.SOCK_DGRAM)
    except OSError:
        return None
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)  # sends nothing
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return None


def is_own(host: str) -> bool:
    """Whether a name or an address is this host's: packets to it leave from itself."""
    own = own_address(host)
    try:
        return own is not None and own in {str(found[4][0]) for found in socket.getaddrinfo(host, _DISCARD)}
    except OSError:
        return False


def answers(host: str, port: int, seconds: float) -> bool:
    """Whether a connection can be opened within that time."""
    try:
        with socket.create_connection((host, port), timeout=seconds):
            return True
    except OSError:
        return False


def interface_of(address: str) -> str | None:
    """Name of the network interface with that address; None where there is none, as in some containers' networks."""
    if ":" in address:
        return _interface_of_ipv6(address.partition("%")[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(any_socket.fileno(), _SIOCGIFADDR, request)
            except OSError:  # it has no address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


def _interface_of_ipv6(address: str) -> str | None:
    wanted = socket.inet_pton(socket.AF_INET6, address).hex()
    try:
        lines = Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((line.split()[-1] for line in lines if line.startswith(wanted)), None)


def choose_interface() -> None:
    """Let gloo listen where the first host is reached, unless `GLOO_SOCKET_IFNAME` says where.

    By itself it takes the address that this host's name leads to. On many machines that is a loopback address, or the name
    leads nowhere, and then no other host gets through.
    """
    address = own_address(os.environ.get("MASTER_ADDR", "")) if "GLOO_SOCKET_IFNAME" not in os.environ else None
    if address is None or address == "::1" or address.startswith("127."):
        return
    interface = interface_of(address)
    if interface is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = interface
