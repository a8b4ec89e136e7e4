"""A process that does one operation and is killed on the way.

Run as `python -m tests.support.victim`; it loads all that it needs, and waits for one line of JSON: what to do.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import datetime

import pytest

from tests.support.broken import RULES
from tests.support.operations import OPERATIONS, Facts, connect
from tests.support.proxy import Proxy
from tests.support.servers import ROOT

STOP_SECONDS = 60.0


class Victim:
    """A victim's process, started ahead, because it takes seconds to load what it needs."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def send(self, name: str, uri: str, endpoint_url: str | None, facts: Facts, without: str | None = None) -> None:
        """Let it begin an operation, perhaps without one of the rules of the protocol."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        told = asdict(facts) | {"told_at": facts.told_at.isoformat()}
        self._process.stdin.write(json.dumps([name, uri, endpoint_url, told, without]) + "\n")
        self._process.stdin.flush()

    def wait_until_stopped(self, proxy: Proxy) -> bool:
        """Wait until the proxy holds one of its requests; return whether it did, else the operation has ended."""
        end = time.monotonic() + STOP_SECONDS
        while self._process.poll() is None:
            if proxy.holds_one():
                return True
            assert time.monotonic() < end, "the victim neither stops nor ends"
            time.sleep(0.01)
        return False

    def kill(self) -> None:
        """Kill -9."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def main() -> None:
    """Do what the line says, with the clock of the operation."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    name, uri, endpoint_url, told, without = json.loads(sys.stdin.readline())
    if without:
        RULES[without](pytest.MonkeyPatch())
    facts = Facts(**told | {"told_at": datetime.fromisoformat(told["told_at"])})
    operation = OPERATIONS[name]
    operation.act(connect(uri, endpoint_url, operation.now), facts)


if __name__ == "__main__":
    main()
