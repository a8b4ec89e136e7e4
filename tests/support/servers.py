"""Start S3 servers as processes of their own, and make sure that none outlives the tests.

A server binds port 0 and writes its address to stdout. It leaves when its stdin ends or when it is handed to another
parent: a killed test run leaves nothing behind, also where a forked process still holds the other end of the pipe.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Self

HOST = "127.0.0.1"
REGION = "us-east-1"
START_SECONDS = 60.0
ROOT = Path(__file__).resolve().parents[2]
FOREIGN_PREFIXES = ("AWS_", "MOTO_", "MINISTACK_", "S3_", "LOCALSTACK_", "VXDATA_", "PYTHON")


Scope = dict[str, Any]
Receive = Callable[..., Awaitable[Scope]]


class Server:
    """A server process, started on construction.

    Attributes:
        endpoint_url: Where it listens, `http://127.0.0.1:<port>`.
        pid: The id of the process.
    """

    endpoint_url: str

    def __init__(self, module: str, *args: str) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by stop()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
            env=_server_environment(),
            start_new_session=True,  # Ctrl-C is for the test run, which then stops its servers
        )
        self.pid = self._process.pid
        try:
            self.endpoint_url = self._read_address(module)
        except BaseException:
            self.stop()
            raise

    def _read_address(self, module: str) -> str:
        assert self._process.stdout is not None
        alarm = threading.Timer(START_SECONDS, self._process.kill)
        alarm.start()
        try:
            address = self._process.stdout.readline().decode().strip()
        finally:
            alarm.cancel()
        if not address:
            raise RuntimeError(f"{module} did not start within {START_SECONDS:.0f} s:\n{self.log()}")
        return address

    def log(self) -> str:
        """Return what the process wrote to stderr, tracebacks of its requests included."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def stop(self) -> None:
        """Kill the process and wait until it is gone; a second call does nothing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_moto() -> Server:
    """Start moto, with conditional PUTs made atomic."""
    return Server("tests.support.moto_server")


def start_careless() -> Server:
    """Start a store that ignores `If-None-Match` on writes, as some small gateways do."""
    return Server("tests.support.moto_server", "careless")


def start_ministack() -> Server:
    """Start ministack: S3 alone, in memory."""
    return Server(__name__)


def aws_environment(endpoint_url: str) -> dict[str, str]:
    """Return the standard AWS variables that point at a test server."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def make_bucket(endpoint_url: str, name: str) -> None:
    """Create a bucket on a test server."""
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=REGION,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(s3={"addressing_style": "path"}, proxies={}, retries={"total_max_attempts": 1}),
    )
    with closing(client):
        client.create_bucket(Bucket=name)


def _server_environment() -> dict[str, str]:
    """Return this process's environment without anything that could change what a server does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_PREFIXES)}
    return kept | {"PYTHONPATH": str(ROOT), "AWS_EC2_METADATA_DISABLED": "true"}


def announce(port: int) -> None:
    """Tell the parent where this process listens; from now on live no longer than the parent (for server processes)."""
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()
    sys.stdout.write(f"http://{HOST}:{port}\n")
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nobody reads the pipe any more: it must not fill up


def _exit_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        readable, _, _ = select.select([sys.stdin], [], [], 1.0)
        if readable:  # the parent never writes: this is the end of the pipe
            break
    os._exit(0)


def _serve_ministack() -> None:
    """Serve ministack's application without its start-up hooks.

    The hooks would open MQTT and SFTP ports, run start scripts and stop the developer's own ministack containers.
    """
    listener = socket.create_server((HOST, 0), backlog=128)
    port = listener.getsockname()[1]
    os.environ |= {"SERVICES": "s3", "BIND_HOST": HOST, "GATEWAY_PORT": str(port), "LOG_LEVEL": "ERROR"}
    os.environ |= {"PERSIST_STATE": "0", "S3_PERSIST": "0"}

    from hypercorn.asyncio import run, serve
    from hypercorn.asyncio.tcp_server import TCPServer
    from hypercorn.config import Config
    from ministack.app import app  # type: ignore[import-untyped]

    class Connection(TCPServer):
        """A connection that ends with its client; Hypercorn keeps it, and its port, until it was idle for too long."""

        async def _read_data(self) -> None:
            await super()._read_data()
            await self.idle_task.stop()

        async def _idle_timeout(self) -> None:
            if not self.reader.at_eof():
                await super()._idle_timeout()

    run.TCPServer = Connection  # type: ignore[misc]

    async def without_lifespan(scope: Scope, receive: Receive, send: Receive) -> None:
        if scope["type"] == "http" and (whole := await _in_one_piece(receive)) is not None:
            await app(scope, whole, send)

    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.accesslog = None
    config.backlog = 1024
    config.keep_alive_timeout = 3600
    config.keep_alive_max_requests = sys.maxsize
    announce(port)
    asyncio.run(serve(without_lifespan, config))  # type: ignore[arg-type]


async def _in_one_piece(receive: Receive) -> Receive | None:
    """Read a request's body at once: ministack adds piece to piece, which takes 40 s for 100 MB.

    None where the client went away on the way: ministack would take what came for the whole.
    """
    pieces, more = [], True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return None
        pieces.append(event.get("body", b""))
        more = event.get("more_body", False)
    whole = iter([event | {"body": b"".join(pieces)}])

    async def receive_whole() -> Scope:
        return next(whole, None) or await receive()

    return receive_whole


if __name__ == "__main__":
    _serve_ministack()
