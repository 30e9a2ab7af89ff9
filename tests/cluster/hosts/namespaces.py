"""Several hosts on one machine: network namespaces on a switch of their own, each with its address and its name.

Nothing is added to the machine's own network. Processes see the machine's files and all its processes, as on a cluster with a
shared file system; what they share over the network goes through the switch, whose cables can be cut.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_networks = itertools.count()


def missing() -> str | None:
    """Why namespaces cannot be made here; None where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "unshare"):
        if shutil.which(tool) is None:
            return f"there is no program {tool}"
    name = f"moss{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"ip netns add: {made.stderr.strip()}"
    bridge = _ip("-n", name, "link", "add", "probe", "type", "bridge", check=False)
    _ip("netns", "delete", name)
    return f"ip link add: {bridge.stderr.strip()}" if bridge.returncode else None


def _ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done


class Host:
    """One of them; `network` makes it.

    Args:
        switch: namespace of the switch.
        number: of this host, from 0.
    """

    def __init__(self, switch: str, number: int) -> None:
        self.namespace = f"{switch}-{number}"
        self.number = number
        self.name = f"host{number}"
        self.address = f"10.77.0.{number + 1}"
        self._switch, self._port = switch, f"port{number}"
        _ip("netns", "add", self.namespace)
        _ip("-n", self.namespace, "link", "set", "lo", "up")
        _ip("link", "add", self._port, "netns", switch, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        _ip("-n", self.namespace, "link", "set", "eth0", "address", _hardware_address(number), "up")
        _ip("-n", self.namespace, "address", "add", f"{self.address}/24", "dev", "eth0")
        self.join()

    def knows(self, number: int) -> None:
        """Enter a neighbour for good: packets to it are sent on, and not refused, when it no longer answers."""
        address = f"10.77.0.{number + 1}"
        _ip("-n", self.namespace, "neighbour", "add", address, "lladdr", _hardware_address(number), "dev", "eth0")

    def join(self) -> None:
        """Plug the cable in."""
        _ip("-n", self._switch, "link", "set", self._port, "master", "bridge", "up")

    def unplug(self) -> None:
        """Pull the cable out: both ends see it."""
        _ip("-n", self._switch, "link", "set", self._port, "down")

    def fall_silent(self) -> None:
        """All packets from and to it are lost, and nobody is told: cables stay up, connections stay open."""
        _ip("-n", self._switch, "link", "set", self._port, "nomaster")

    def start(
        self, command: Sequence[str], output: Path, environment: Mapping[str, str], folder: Path
    ) -> subprocess.Popen[bytes]:
        """Start a command on it.

        Args:
            output: file to which stdout and stderr are added.
            environment: all of it.
        """
        inside = ["unshare", "--uts", "sh", "-c", f'hostname {self.name} && exec "$@"', "sh", *command]
        with output.open("ab") as file:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *inside],
                cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip

    def processes(self) -> list[int]:
        """All that run on it."""
        return [int(word) for word in _ip("netns", "pids", self.namespace, check=False).stdout.split()]

    def lose_power(self, seconds: float = 10.0) -> None:
        """Every process is gone at once, and no packet says so."""
        self.fall_silent()
        deadline = time.monotonic() + seconds
        while found := self.processes():
            assert time.monotonic() < deadline, f"{self.name} still has the processes {found}"
            for process in found:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.05)


def _hardware_address(number: int) -> str:
    return f"02:00:00:00:00:{number + 1:02x}"


@contextmanager
def network(hosts: int) -> Iterator[list[Host]]:
    """That many hosts on one switch; what runs on them at the end is killed, and nothing of them stays."""
    switch = f"moss{os.getpid()}-{next(_networks)}"
    found: list[Host] = []
    try:
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for number in range(hosts):
            found.append(Host(switch, number))
        for one, other in itertools.permutations(range(hosts), 2):
            found[one].knows(other)
        yield found
    finally:
        for host in found:
            host.lose_power()
        for number in range(hosts):
            _ip("netns", "delete", f"{switch}-{number}", check=False)
        _ip("netns", "delete", switch, check=False)
