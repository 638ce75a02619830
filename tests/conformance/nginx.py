"""nginx between the driver and the mock provider: the TLS front that many providers stand behind.

It speaks HTTP/1.1 and HTTP/2 over TLS, passes bytes on as they come, tries nothing twice, and reaches the provider by plain
HTTP/1.1 over connections that it keeps. One runs for one test: it starts in a few milliseconds, and hands nothing on to the
next.

What nginx would say for itself, it does not say. A provider that hangs up before its head makes nginx answer 502; here it
hangs up too (its status 444), over HTTP/2 by ending the stream. So the driver meets what the provider did.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

HOW_TO_INSTALL = "install nginx (Debian: apt-get install nginx-light)"

PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin")
"""Where it is on this machine; ``None``: nowhere."""

PATIENCE = 30.0
"""Seconds until an nginx that does not answer counts as failed."""

_CONFIG = """\
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/log warn;
events {{ worker_connections 2048; }}

http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;

    # Nothing runs out before a clock of the driver's does.
    keepalive_timeout 1h;
    keepalive_requests {requests};
    client_header_timeout 1h;
    client_body_timeout 1h;
    send_timeout 1h;
    proxy_connect_timeout 60s;
    proxy_send_timeout 1h;
    proxy_read_timeout 1h;

    # Nothing is too large before the driver or the provider says so.
    client_max_body_size 0;
    large_client_header_buffers 8 256k;
    proxy_buffer_size 2m;
    proxy_buffers 2 2m;
    proxy_busy_buffers_size 2m;

    upstream provider {{
        server 127.0.0.1:{provider_port};
        keepalive 256;
        keepalive_timeout 1h;
        keepalive_requests 1000000;
    }}

    server {{
        listen 127.0.0.1:{port} ssl{http2};
        http2_max_concurrent_streams {streams};
        ssl_certificate {certificate};
        ssl_certificate_key {certificate};

        location / {{
            proxy_pass http://provider;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_next_upstream off;
            proxy_ignore_client_abort off;
            error_page 502 = @hang_up;
        }}
        location @hang_up {{ return 444; }}
    }}

    server {{
        listen unix:{folder}/status;
        stub_status;
    }}
}}
"""


class Front:
    """A running nginx. Its counts are of the driver's connections, not of those it keeps to the provider."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.port = port
        self._process = process
        self._folder = folder
        self._earlier = 0  # how often this was asked before, each time over a connection of its own

    @property
    def connections_open(self) -> int:
        """How many connections it has accepted and not closed."""
        return self._counts()[0]

    @property
    def connections_total(self) -> int:
        """How many connections it has ever accepted."""
        return self._counts()[1]

    def reload(self) -> None:
        """As `nginx -s reload`: a new worker takes what comes, the old one ends when its requests have."""
        self._process.send_signal(signal.SIGHUP)

    def _counts(self) -> tuple[int, int]:
        with socket.socket(socket.AF_UNIX) as status:
            status.settimeout(PATIENCE)
            status.connect(str(self._folder / "status"))
            status.sendall(b"GET / HTTP/1.0\r\n\r\n")
            page = b"".join(iter(lambda: status.recv(4096), b"")).decode()
        found = re.search(r"Active connections: (\d+) \n.*\n (\d+) ", page)
        assert found is not None, page
        self._earlier += 1
        return int(found[1]) - 1, int(found[2]) - self._earlier


@contextmanager
def run(
    provider_port: int,
    certificate: Path,
    *,
    port: int = 0,
    http2: bool = True,
    streams: int = 128,
    requests: int = 1_000_000,
) -> Iterator[Front]:
    """Run nginx in front of a plain provider on ``port`` (0: any free one) until the block is left.

    certificate: a file with its key and its chain. http2: whether it is on offer beside HTTP/1.1. streams: how many requests
    at once one connection takes over HTTP/2. requests: how many one connection takes in all.
    """
    assert PROGRAM is not None, HOW_TO_INSTALL
    # The port is bound here but not listened on, so that nobody else is given it, and nginx may take it.
    with TemporaryDirectory(prefix="nginx-") as name, socket.socket() as claim:
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        claim.bind(("127.0.0.1", port))
        port = claim.getsockname()[1]
        folder = Path(name)
        log = folder / "log"
        config = folder / "nginx.conf"
        config.write_text(
            _CONFIG.format(
                folder=folder,
                provider_port=provider_port,
                port=port,
                http2=" http2" if http2 else "",
                streams=streams,
                requests=requests,
                certificate=certificate,
            )
        )
        with _ended_with_us([PROGRAM, "-p", name, "-c", str(config), "-e", str(log)]) as process:
            front = Front(port, process, folder)
            _wait_for(front, process, log)
            yield front


@contextmanager
def _ended_with_us(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block is left, or (where the system can) this process is gone, however it went."""
    if (guard := shutil.which("setpriv")) is not None:
        command = [guard, "--pdeathsig", "TERM", *command]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()


def _wait_for(front: Front, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it answers."""
    give_up_at = time.monotonic() + PATIENCE
    while True:
        try:
            assert front.connections_open == 0
        except OSError as error:
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError(f"nginx does not run: {log.read_text() if log.exists() else error}") from error
            time.sleep(0.001)
        else:
            return
