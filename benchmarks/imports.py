"""The time to import the SDK against that of importing Polars and pydantic."""

import statistics

from benchmarks.measure import Row, in_process


def measure(runs: int = 15) -> list[Row]:
    """Whole processes, in turn."""
    pairs = [(in_process("import vxdata.sdk"), in_process("import polars, pydantic")) for _ in range(runs + 1)][1:]
    ours, peer = (statistics.median(p[i].cpu for p in pairs) for i in (0, 1))
    ratio = statistics.median(a.cpu / b.cpu for a, b in pairs)
    return [Row("import vxdata.sdk / import polars, pydantic (processor time)", ours * 1e3, peer * 1e3, ratio, 1.2)]
