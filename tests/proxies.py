"""Real proxies, each a child process in front of one gRPC server: nginx, HAProxy and nghttpx. For tests.

Rules:
* HTTP/2 in clear text on both sides, begun without asking; one worker, so that a reload means one old and one new.
* A proxy has an address of its own in 127.0.0.0/8: no port has to be guessed, and nobody else is in its way.
* It leads a process group, which is killed when the block is left: no worker outlives its test.
* The configurations are those that docs/proxies.md recommends, and what only a test wants: paths, and its one worker.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Final

import pytest
import trio
from attrs import field, frozen

from viewreg import CallError, Endpoint, InternalError, UnavailableError, UnknownError

if TYPE_CHECKING:
    from collections.abc import Iterator

_GUARD: Final = 10.0  # seconds; a proxy that does not listen by then never will
_POLL: Final = 0.01  # seconds
_PORT: Final = 8080
_PATHS: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"  # where Debian puts two of the three

_NGINX: Final = """
daemon off;
user root root;  # the test's folder is closed to others; ignored unless it is root who runs the test
worker_processes 1;
pid {folder}/pid;
error_log {folder}/log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/client;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream views {{
        server {backend};
        keepalive 64;
    }}
    server {{
        listen {host}:{port} http2;
        keepalive_requests 1000000000;
        keepalive_time 24h;
        keepalive_timeout 1h;
        client_max_body_size 0;
        client_body_timeout 24h;
        send_timeout 24h;
        underscores_in_headers on;
        ignore_invalid_headers off;
        large_client_header_buffers 4 64k;
        location / {{
            grpc_pass grpc://views;
            grpc_read_timeout 24h;
            grpc_send_timeout 24h;
            grpc_buffer_size 64k;
        }}
    }}
}}
"""

_HAPROXY: Final = """
global
    nbthread 1
    tune.bufsize 65536
defaults
    mode http
    retries 0
    timeout connect 5s
    timeout client 24h
    timeout server 24h
frontend clients
    bind {host}:{port} proto h2
    default_backend views
backend views
    server view {backend} proto h2
"""

_NGHTTPX: Final = """
workers=1
pid-file={folder}/pid
accesslog-file=/dev/null
errorlog-file={folder}/log
frontend={host},{port};no-tls
frontend-http2-read-timeout=24h
backend={backend_host},{backend_port};;no-tls;proto=h2
backend-read-timeout=24h
backend-max-backoff=1s
"""


@frozen
class Kind:
    """One of the three programs, and in what they differ."""

    program: str
    arguments: tuple[str, ...]
    configuration: str = field(repr=False)
    reload: signal.Signals  # for the process that leads
    # What becomes of a call when the server behind it dies, before its answer has begun and after.
    unanswered: type[CallError]
    half_answered: type[CallError]

    def configure(self, listens: Endpoint, backend: Endpoint, folder: Path) -> str:
        """What its configuration file says."""
        return self.configuration.format(
            folder=folder,
            host=listens.host,
            port=listens.port,
            backend=backend.host_port,
            backend_host=backend.host,
            backend_port=backend.port,
        )


NGINX: Final = Kind(
    "nginx",
    ("-p", "{folder}", "-e", "{folder}/log", "-c", "{file}"),
    _NGINX,
    signal.SIGHUP,
    UnavailableError,
    InternalError,
)
HAPROXY: Final = Kind("haproxy", ("-W", "-f", "{file}"), _HAPROXY, signal.SIGUSR2, UnavailableError, UnknownError)
NGHTTPX: Final = Kind("nghttpx", ("--conf={file}",), _NGHTTPX, signal.SIGHUP, InternalError, InternalError)
ALL: Final = (NGINX, HAPROXY, NGHTTPX)


class Proxy:
    """A running proxy. Made by `open_proxy`."""

    def __init__(self, kind: Kind, process: subprocess.Popen[bytes], endpoint: Endpoint) -> None:
        self.kind: Final = kind
        self.endpoint: Final = endpoint  # where it listens
        self._process: Final = process

    async def reload(self) -> None:
        """Have it read its configuration again: a new worker takes over, the old one ends when its calls have.

        Waits until it listens to the signal: HAProxy's master ignores it while it loads.
        """
        while not _catches(self._process.pid, self.kind.reload):  # noqa: ASYNC110 (a process tells nobody)
            await trio.sleep(_POLL)
        self._process.send_signal(self.kind.reload)


def _catches(pid: int, number: signal.Signals) -> bool:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) >> number - 1 & 1)


@contextmanager
def open_proxy(kind: Kind, backend: Endpoint, folder: Path) -> Iterator[Proxy]:
    """Run it in front of the server at `backend`; its files go to `folder`. Skips the test if it is not installed."""
    program = shutil.which(kind.program, path=_PATHS)
    if program is None:
        pytest.skip(f"{kind.program} is not installed")
    random = SystemRandom()
    listens = Endpoint(f"127.{random.randrange(1, 256)}.{random.randrange(256)}.{random.randrange(1, 255)}", _PORT)
    file = folder / "configuration"
    file.write_text(kind.configure(listens, backend, folder))
    command = [program, *(argument.format(folder=folder, file=file) for argument in kind.arguments)]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_until_it_listens(process, listens, folder)
        yield Proxy(kind, process, listens)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_it_listens(process: subprocess.Popen[bytes], endpoint: Endpoint, folder: Path) -> None:
    due = time.monotonic() + _GUARD
    with socket.socket() as client:
        while refused := client.connect_ex((endpoint.host, endpoint.port)):
            assert refused == errno.ECONNREFUSED, os.strerror(refused)
            assert process.poll() is None, (folder / "output").read_text()
            assert time.monotonic() < due, f"{endpoint} is not there: {(folder / 'output').read_text()}"
            time.sleep(_POLL)
