"""Paired measurements: two things in turn, A B A B ..., and the median of the ratios."""

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_QUICK = 0.1


@dataclass(frozen=True)
class Row:
    """One line of the report; a ratio without a target is only told."""

    question: str
    ours: float
    peer: float
    ratio: float
    target: float | None
    unit: str = "ms"

    @property
    def verdict(self) -> str:
        """Whether the target is met."""
        if self.target is None:
            return ""
        return "met" if self.ratio <= self.target else "MISSED"


def paired(
    question: str, ours: Callable[[], Any], peer: Callable[[], Any], target: float | None, runs: int = 15
) -> Row:
    """Time two functions in turn after a warm-up; the ratio is the median of the pairs' ratios."""
    ours(), peer()
    pairs = [(_seconds(ours), _seconds(peer)) for _ in range(runs)]
    mine, theirs = zip(*pairs, strict=True)
    ratio = statistics.median(a / b for a, b in pairs)
    return Row(question, statistics.median(mine) * 1e3, statistics.median(theirs) * 1e3, ratio, target)


@dataclass(frozen=True)
class Race:
    """One question put to us and to several peers; milliseconds, and the ratio to the fastest peer.

    `work` is the ratio of the processor's time, which other load on the machine disturbs less.
    """

    question: str
    ours: float
    peers: Mapping[str, float]
    ratio: float
    work: float
    target: float

    @property
    def verdict(self) -> str:
        """Whether the target is met."""
        return "met" if self.ratio <= self.target else "MISSED"


def raced(
    question: str, ours: Callable[[], Any], peers: Mapping[str, Callable[[], Any]], target: float, runs: int
) -> Race:
    """Time us and the peers in turn after a warm-up; all have to find as many rows."""
    runners = {"": ours, **peers}
    heights = {name: len(run()) for name, run in runners.items()}
    if len(set(heights.values())) != 1:
        raise SystemExit(f"{question}: the answers differ: {heights}")
    order, chance = list(runners), random.Random(1)  # an order, no secret
    rounds = []
    for _ in range(runs):
        chance.shuffle(order)  # so that nobody always runs after the same one, and on its warm or cold memory
        rounds.append({name: _warm_lap(runners[name]) for name in order})
    medians = {name: statistics.median(times[name].wall for times in rounds) * 1e3 for name in runners}
    fastest = min(peers, key=lambda name: medians[name])
    ratio = statistics.median(times[""].wall / times[fastest].wall for times in rounds)
    work = statistics.median(times[""].cpu / times[fastest].cpu for times in rounds)
    return Race(question, medians.pop(""), medians, ratio, work, target)


@dataclass(frozen=True)
class _Lap:
    wall: float
    cpu: float


def _lap(function: Callable[[], Any]) -> _Lap:
    cpu = time.process_time()
    wall = _seconds(function)
    return _Lap(wall, time.process_time() - cpu)


def _warm_lap(function: Callable[[], Any]) -> _Lap:
    """Time a function; a quick one twice, as the peer before it left the processor's caches to itself."""
    first = _lap(function)
    return first if first.wall > _QUICK else _lap(function)


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Run:
    """One finished process: wall and processor seconds, peak memory, and what it printed as JSON."""

    wall: float
    cpu: float
    peak_gib: float
    result: Any


def processor_seconds(*command: str, **environment: str) -> float:
    """Run a program and return the processor time that it took; what it prints is thrown away."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **environment})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"a benchmark failed with {process.returncode}: {' '.join(command)}")
    return usage.ru_utime + usage.ru_stime


_PEAK = """
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


def in_process(code: str, *arguments: str) -> Run:
    """Run Python code in a process of its own, on Linux; what it prints last is read as JSON.

    The process tells its peak memory itself: that which `wait4` tells holds the peak of this process, too.
    """
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code + _PEAK, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"a benchmark failed with {process.returncode}:\n{code}")
    *lines, peak_kib = printed.strip().splitlines()
    return Run(wall, usage.ru_utime + usage.ru_stime, int(peak_kib) / 2**20, json.loads(lines[-1]) if lines else None)
