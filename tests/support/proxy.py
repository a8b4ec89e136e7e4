"""An HTTP/1.1 proxy in front of an S3 server: it counts requests and strikes with faults where a test wants them.

`Proxy(upstream_url)` starts the process (this module, run as `python -m`) and controls it over the reserved path
`/__proxy/`. Messages pass through byte for byte, the Host header included, because SigV4 signs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import re
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args
from urllib.parse import unquote, unquote_plus, urlsplit

from tests.support.servers import HOST, Server, announce

Status = Literal[403, 409, 429, 500, 503]
Fault = Status | Literal["reset", "lost_answer", "cut_body", "hang", "withhold"]
Kind = Literal["GET", "PUT", "LIST", "HEAD", "DELETE", "POST"]

CONTROL = "/__proxy/"
CONTROL_SECONDS = 60
BUFFER_BYTES = 1 << 20
ERROR_CODES: dict[Status, str] = {
    403: "AccessDenied",
    409: "ConditionalRequestConflict",
    429: "TooManyRequests",
    500: "InternalError",
    503: "SlowDown",
}


@dataclass(frozen=True, slots=True)
class Record:
    """One request that the proxy saw.

    Attributes:
        method: The HTTP method.
        path: Bucket and key, decoded: `bucket/lake/a b.parquet`.
        query: The query string, decoded.
        kind: The method, or LIST for a GET of a bucket.
        status: What the server (or an injected status) answered; None while it is open, and for "reset" and "hang".
        request_bytes: Size of the body that came from the client, aws-chunked framing included.
        response_bytes: Size of the body that went to the client.
        fault: The fault that struck, if any.
        is_done: Whether the server has done it all, of a request whose answer is kept from the client.
    """

    method: str
    path: str
    query: str
    kind: Kind
    status: int | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    fault: Fault | None = None
    is_done: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests a fault strikes.

    Attributes:
        kind: `Record.kind`; None for all.
        path: A regular expression, searched in `path` and in `path?query` (a LIST has its prefix in the query).
        nth: The first occurrence to strike, counted from 1 at the injection.
        times: How many in a row from there; None for all.
    """

    kind: Kind | None = None
    path: str = ""
    nth: int = 1
    times: int | None = 1

    def covers(self, kind: str, path: str, query: str) -> bool:
        """Tell whether a request is one of those that are counted."""
        return self.kind in (None, kind) and any(re.search(self.path, text) for text in (path, f"{path}?{query}"))

    def strikes(self, occurrence: int) -> bool:
        """Tell whether the fault strikes at this occurrence, counted from 1."""
        return occurrence >= self.nth and (self.times is None or occurrence < self.nth + self.times)


ANY_REQUEST = Match(times=None)


class Proxy(Server):
    """A proxy process in front of `upstream_url`, started on construction."""

    def __init__(self, upstream_url: str) -> None:
        super().__init__("tests.support.proxy", upstream_url)

    def reset(self) -> None:
        """Forget all requests and faults."""
        self._control("reset", {})

    def requests(self) -> list[Record]:
        """Return the requests since the last reset, in the order of their arrival."""
        return [Record(**fields) for fields in self._control("requests", {})]

    def holds_one(self) -> bool:
        """Return whether a request hangs, or is done and its answer kept from the client."""
        return bool(self._control("holds_one", {}))

    def inject(self, fault: Fault, match: Match = ANY_REQUEST) -> None:
        """Strike the requests that match; where several faults do, the one that was injected first wins.

        Args:
            fault: A status is answered instead of forwarding. "reset": the connection is reset before anything is
                forwarded. "lost_answer": the server does it all, then the connection closes without an answer.
                "cut_body": half of the answer's body, then the connection closes. "hang": nothing is forwarded and
                nothing answered, until the client gives up or the proxy stops. "withhold": the server does it all,
                and then nothing is answered until the client gives up.
            match: Which requests; by default all.
        """
        if fault not in (*get_args(Status), "reset", "lost_answer", "cut_body", "hang", "withhold"):
            raise ValueError(f"unknown fault {fault!r}")
        re.compile(match.path)  # a bad pattern fails here
        self._control("inject", {"fault": fault, "match": asdict(match)})

    def _control(self, command: str, argument: object) -> Any:
        connection = http.client.HTTPConnection(urlsplit(self.endpoint_url).netloc, timeout=CONTROL_SECONDS)
        with contextlib.closing(connection):
            connection.request("POST", CONTROL + command, json.dumps(argument))
            answer = connection.getresponse()
            body = answer.read()
        if answer.status != http.client.OK:
            raise RuntimeError(f"proxy {command}: {body.decode()}")
        return json.loads(body)


# The process


@dataclass(frozen=True, slots=True)
class Peer:
    """One end of a relayed connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@dataclass(frozen=True, slots=True)
class Head:
    """The first line and the header fields of a message, with the bytes that they came in."""

    raw: bytes
    first: str
    fields: dict[str, str]

    @classmethod
    async def read(cls, reader: asyncio.StreamReader) -> Head | None:
        """Read the next head; None where the connection ends."""
        try:
            raw = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return cls(raw, first, {name.strip().lower(): value.strip() for name, _, value in pairs})

    @property
    def status(self) -> int:
        return int(self.first.split()[1])

    def has(self, field: str, token: str) -> bool:
        return token in self.fields.get(field, "").lower()


def record_of(head: Head) -> dict[str, Any]:
    """Return the fields of the `Record` of a request that has just arrived."""
    method, target, _ = head.first.split(" ", 2)
    path, _, query = target.partition("?")
    key = unquote(path).removeprefix("/")
    is_list = method == "GET" and "/" not in key.rstrip("/")
    return asdict(Record(method, key, unquote_plus(query), "LIST" if is_list else method))  # type: ignore[arg-type]


Pieces = AsyncIterator[tuple[bytes, int]]


def request_body(reader: asyncio.StreamReader, head: Head) -> Pieces:
    """Yield a request's body as it is on the wire, each piece with its size without chunk framing."""
    if head.has("transfer-encoding", "chunked"):
        return _chunked(reader)
    return _sized(reader, int(head.fields.get("content-length", 0)))


def answer_body(reader: asyncio.StreamReader, head: Head, method: str) -> Pieces:
    """Yield an answer's body in the same way."""
    if method == "HEAD" or head.status in (204, 304):
        return _sized(reader, 0)
    if head.has("transfer-encoding", "chunked"):
        return _chunked(reader)
    if "content-length" in head.fields:
        return _sized(reader, int(head.fields["content-length"]))
    return _to_the_end(reader)


async def _sized(reader: asyncio.StreamReader, size: int) -> Pieces:
    while size > 0:
        piece = await reader.read(min(size, BUFFER_BYTES))
        if not piece:
            raise asyncio.IncompleteReadError(piece, size)
        size -= len(piece)
        yield piece, len(piece)


async def _chunked(reader: asyncio.StreamReader) -> Pieces:
    while True:
        line = await reader.readuntil(b"\r\n")
        yield line, 0
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            break
        async for piece in _sized(reader, size):
            yield piece
        yield await reader.readexactly(2), 0
    trailer = b""
    while trailer != b"\r\n":
        trailer = await reader.readuntil(b"\r\n")
        yield trailer, 0


async def _to_the_end(reader: asyncio.StreamReader) -> Pieces:
    while piece := await reader.read(BUFFER_BYTES):
        yield piece, len(piece)


@dataclass(slots=True)
class Link:
    """A client's connection and the one connection to the server that goes with it, opened when it is needed."""

    client: Peer
    address: tuple[str, int]
    server: Peer | None = None

    async def upstream(self) -> Peer:
        if self.server is None or self.server.reader.at_eof():
            self.server = Peer(*await asyncio.open_connection(*self.address, limit=BUFFER_BYTES))
        return self.server

    async def close(self) -> None:
        for peer in filter(None, (self.client, self.server)):
            await peer.close()


class Relay:
    """All that the proxy knows: the requests, the faults, and how to answer each connection."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._records: list[dict[str, Any]] = []
        self._faults: list[tuple[Fault, Match, itertools.count[int]]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer all requests of one connection of a client."""
        link = Link(Peer(reader, writer), self._address)
        try:
            while (head := await Head.read(reader)) and await self._answer(link, head):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # either side went away: so do we
        finally:
            await link.close()

    async def _answer(self, link: Link, head: Head) -> bool:
        """Answer one request; return whether the connection can take another."""
        if head.first.startswith("POST " + CONTROL):
            return await self._obey(link.client, head)
        record = record_of(head)
        self._records.append(record)
        record["fault"] = self._next_fault(record)
        match record["fault"]:
            case 403 | 409 | 429 | 500 | 503 as status:
                return await answer_status(link.client, head, record, status)
            case "reset":
                return reset(link.client)
            case "hang":
                await link.client.reader.read(-1)
                return False
            case _:
                return await forward(link.client, await link.upstream(), head, record)

    def _next_fault(self, record: dict[str, Any]) -> Fault | None:
        covering = [f for f in self._faults if f[1].covers(record["kind"], record["path"], record["query"])]
        striking = [fault for fault, match, occurrences in covering if match.strikes(next(occurrences))]
        return striking[0] if striking else None

    async def _obey(self, client: Peer, head: Head) -> bool:
        body = b"".join([wire async for wire, _ in request_body(client.reader, head)])
        command, argument = head.first.split()[1].removeprefix(CONTROL), json.loads(body)
        result: Any = {}
        match command:
            case "requests":
                result = self._records
            case "holds_one":
                result = any(record["fault"] == "hang" or record["is_done"] for record in self._records)
            case "reset":
                self._records, self._faults = [], []
            case "inject":
                self._faults.append((argument["fault"], Match(**argument["match"]), itertools.count(1)))
            case _:
                raise ValueError(command)
        await client.send(message(200, "OK", json.dumps(result).encode()))
        return True


def message(status: int, reason: str, body: bytes) -> bytes:
    """Return a whole answer."""
    return f"HTTP/1.1 {status} {reason}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def counting(record: dict[str, Any], field: str) -> Callable[[int], None]:
    """Return a function that adds to a counter of a record."""

    def add(size: int) -> None:
        record[field] += size

    return add


async def pass_on(pieces: Pieces, target: Peer, count: Callable[[int], None]) -> None:
    """Send the pieces, counting each one first: whoever has received it finds it counted."""
    async for wire, size in pieces:
        count(size)
        await target.send(wire)


async def answer_status(client: Peer, head: Head, record: dict[str, Any], status: Status) -> bool:
    """Take in the whole request, so that the connection stays usable, and answer with an S3 error."""
    if head.has("expect", "100-continue"):
        await client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    async for _, size in request_body(client.reader, head):
        record["request_bytes"] += size
    code = ERROR_CODES[status]
    body = f"<Error><Code>{code}</Code><Message>injected by the test's proxy</Message></Error>".encode()
    whole = message(status, code, body)
    is_head = record["method"] == "HEAD"
    record |= {"status": status, "response_bytes": 0 if is_head else len(body)}
    await client.send(whole[: -len(body)] if is_head else whole)
    return True


def reset(client: Peer) -> bool:
    """Close with a RST instead of a FIN."""
    sock: socket.socket = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()
    return False


async def forward(client: Peer, server: Peer, head: Head, record: dict[str, Any]) -> bool:
    """Relay one exchange, both ways at once; return whether the connection can take another."""
    upload = asyncio.create_task(_upload(client, server, head, record))
    try:
        answer = await _final_head(client, server)
        record["status"] = answer.status
        pieces = answer_body(server.reader, answer, record["method"])
        count = counting(record, "response_bytes")
        match record["fault"]:
            case "lost_answer" | "withhold":
                async for _ in pieces:
                    pass
                record["is_done"] = True
                if record["fault"] == "withhold":
                    await client.reader.read(-1)
                return False
            case "cut_body":
                body = b"".join([wire async for wire, _ in pieces])
                half = body[: len(body) // 2]
                count(len(half))
                await client.send(answer.raw + half)
                return False
        await client.send(answer.raw)
        await pass_on(pieces, client, count)
        return upload.done() and not any(message.has("connection", "close") for message in (head, answer))
    finally:
        upload.cancel()


async def _upload(client: Peer, server: Peer, head: Head, record: dict[str, Any]) -> None:
    try:
        await server.send(head.raw)
        await pass_on(request_body(client.reader, head), server, counting(record, "request_bytes"))
    except (ConnectionError, asyncio.IncompleteReadError):
        server.writer.transport.abort()  # there will be no answer: let the reading side see the end


async def _final_head(client: Peer, server: Peer) -> Head:
    while answer := await Head.read(server.reader):
        if answer.status >= http.client.OK:
            return answer
        await client.send(answer.raw)  # 100 Continue
    raise ConnectionResetError


async def main(upstream_url: str) -> None:
    """Serve until the parent goes away."""
    upstream = urlsplit(upstream_url)
    assert upstream.hostname == HOST
    assert upstream.port is not None
    relay = Relay(upstream.hostname, upstream.port)
    server = await asyncio.start_server(relay.serve, HOST, 0, limit=BUFFER_BYTES, backlog=128)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
