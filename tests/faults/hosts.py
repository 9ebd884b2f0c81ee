"""A second host on this machine: network and host name of its own, and a cable that can be pulled.

Processor, disk and locks are this machine's. So the store is a shared folder as a good network file system gives it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

NETWORK = "10.213.77"
"""First three numbers of the addresses of both hosts; 1 is this machine, 2 the other."""


@dataclass(frozen=True)
class Host:
    """A host in a network namespace, whose cable ends at a bridge of this machine.

    Parameters
    ----------
    name
        Its host name, and the name of its namespace.
    port
        Network device in which its cable ends at the bridge.
    """

    name: str
    port: str

    def command(self, command: list[str]) -> list[str]:
        """A command as it has to be started here to run there."""
        there = ["ip", "netns", "exec", self.name, "unshare", "--uts", "sh", "-c"]
        return [*there, f'hostname {self.name} && exec "$@"', "sh", *command]

    def cut_off(self) -> None:
        """Pull the cable: what is sent is dropped in silence, and no connection is closed."""
        _ip("link", "set", self.port, "down")

    def rejoin(self) -> None:
        """Plug the cable in again."""
        _ip("link", "set", self.port, "up")


def forbidden() -> str | None:
    """Why no second host can be made here; None if one can."""
    missing = [name for name in ("ip", "unshare") if shutil.which(name) is None]
    if missing:
        return f"there is no {missing[0]} (iproute2 and util-linux have them)"
    try:
        with second_host() as (_, host):
            done = subprocess.run(host.command(["true"]), capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        return f"{' '.join(error.cmd)}: {error.stderr.strip()}"
    return done.stderr.strip() or None


@contextmanager
def second_host() -> Iterator[tuple[str, Host]]:
    """Make a second host and yield this machine's address on their network, and the host; remove it afterwards.

    Raises
    ------
    subprocess.CalledProcessError
        If network namespaces, bridges or pairs of devices are not permitted.
    """
    tag = f"{os.getpid() % 100_000}"  # names of devices have 15 letters
    bridge, host = f"recon-br{tag}", Host(f"recon-b{tag}", f"recon-p{tag}")
    with ExitStack() as made:
        _ip("netns", "add", host.name)
        made.callback(_ip, "netns", "del", host.name)
        _ip("link", "add", bridge, "type", "bridge")
        made.callback(_ip, "link", "del", bridge)
        _ip("addr", "add", f"{NETWORK}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        _ip("link", "add", host.port, "type", "veth", "peer", "name", "eth0", "netns", host.name)
        made.callback(_ip, "link", "del", host.port)  # with its namespace it would go later, some time
        _ip("link", "set", host.port, "master", bridge, "up")
        _ip("-n", host.name, "addr", "add", f"{NETWORK}.2/24", "dev", "eth0")
        _ip("-n", host.name, "link", "set", "lo", "up")
        _ip("-n", host.name, "link", "set", "eth0", "up")
        yield f"{NETWORK}.1", host


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
