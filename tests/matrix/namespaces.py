"""Two hosts with a cable between them, that can be cut: network namespaces of Linux, for who may make them.

Rules:
* Nothing has a name outside: the namespaces live by their file descriptors, and end with the block, or the process.
* The cut is silent both ways, as if a switch lost all: frames go to a hardware address that nobody has.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Final, TypeVar

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

CLIENT: Final = "192.0.2.1"  # RFC 5737: addresses that are nobody's
SERVER: Final = "192.0.2.2"
MACS: Final = {CLIENT: "02:00:00:00:00:01", SERVER: "02:00:00:00:00:02"}
NOBODY: Final = "02:00:00:00:00:ff"
_CLONE_NEWNET: Final = 0x40000000


@frozen
class Cable:
    """Two namespaces, by file descriptors, and what joins them."""

    client: int
    server: int

    def client_socket(self) -> socket.socket:
        """A TCP socket on the client's host."""
        return _inside(self.client, _tcp_socket)

    def server_socket(self) -> socket.socket:
        """A TCP socket on the server's host."""
        return _inside(self.server, _tcp_socket)

    def cut(self) -> None:
        """Let nothing pass."""
        self._neighbour(self.client, SERVER, NOBODY)
        self._neighbour(self.server, CLIENT, NOBODY)

    def heal(self) -> None:
        """Let all pass."""
        self._neighbour(self.client, SERVER, MACS[SERVER])
        self._neighbour(self.server, CLIENT, MACS[CLIENT])

    def _neighbour(self, namespace: int, address: str, mac: str) -> None:
        _ip(namespace, "neigh", "replace", address, "lladdr", mac, "dev", "cable", "nud", "permanent")


@contextmanager
def open_cable() -> Iterator[Cable]:
    """Two hosts that reach each other, as long as the block lasts."""
    client, server = _in_a_thread(_new_namespace), _in_a_thread(_new_namespace)
    try:
        cable = Cable(client, server)
        far = ("peer", "name", "cable", "address", MACS[SERVER], "netns", f"/proc/self/fd/{server}")
        _ip(client, "link", "add", "cable", "address", MACS[CLIENT], "type", "veth", *far, passing=server)
        for namespace, address in ((client, CLIENT), (server, SERVER)):
            _ip(namespace, "address", "add", f"{address}/30", "dev", "cable")
            _ip(namespace, "link", "set", "cable", "up")
        cable.heal()
        yield cable
    finally:
        os.close(client)
        os.close(server)


@cache
def missing() -> str:
    """What is missing for it; nothing if all is there."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux'"
    for program in ("ip", "nsenter"):
        if shutil.which(program) is None:
            return f"there is no {program}"
    try:
        with open_cable():
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return f"network namespaces need CAP_SYS_ADMIN, which root has: {error}"


def _ip(namespace: int, *words: str, passing: int | None = None) -> None:
    command = ["nsenter", f"--net=/proc/self/fd/{namespace}", "ip", *words]
    passed = [namespace] if passing is None else [namespace, passing]
    subprocess.run(command, check=True, pass_fds=passed, stdin=subprocess.DEVNULL, capture_output=True)


def _tcp_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def _new_namespace() -> int:
    _call("unshare", _CLONE_NEWNET)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _inside(namespace: int, make: Callable[[], T]) -> T:
    def enter_and_make() -> T:
        _call("setns", namespace, _CLONE_NEWNET)
        return make()

    return _in_a_thread(enter_and_make)


def _in_a_thread(make: Callable[[], T]) -> T:
    """A thread of its own, because it does not come back from the namespace that it enters."""
    made: list[T] = []
    errors: list[OSError] = []

    def run() -> None:
        try:
            made.append(make())
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for error in errors:
        raise error
    return made[0]


def _call(name: str, *arguments: int) -> None:
    """Call the C library: `os` has these functions only since Python 3.12."""
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    if function(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
