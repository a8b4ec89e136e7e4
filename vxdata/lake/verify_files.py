"""Verifying the data files of a table: each is there, is what was written, and is what the log says of it.

Four files at a time are read as a whole; nothing of them is kept.
"""

import io
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from vxdata.catalog.table import PARTITION_COLUMN
from vxdata.errors import StorageError
from vxdata.lake.datafile import SORT_COLUMNS, named_checksum, read_checked
from vxdata.lake.faults import refuse_unanswered, translated
from vxdata.lake.findings import Finding, found
from vxdata.lake.snapshot import Snapshot, polars_statistics
from vxdata.schemas.registry import STANDARD_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

_READERS = 4
BROKEN = frozenset({"file-missing", "file-damaged", "file-unreadable", "file-columns"})
"""The kinds of findings after which the rows of a file are not looked at."""


@dataclass(frozen=True)
class CheckedFile:
    """One data file after its check.

    Attributes:
        key: its key below the table's folder.
        findings: what is wrong with it.
    """

    key: str
    findings: tuple[Finding, ...]

    @property
    def is_readable(self) -> bool:
        """Whether its rows can be looked at."""
        return not any(finding.kind in BROKEN for finding in self.findings)


def check_files(snapshot: Snapshot, sizes: Mapping[str, int]) -> Iterator[CheckedFile]:
    """Check every live file of a table, in the order of `snapshot.files`.

    Args:
        snapshot: the table's newest state.
        sizes: the size of each object that the store lists, by its key in the lake.
    """

    def check(number: int) -> CheckedFile:
        row = snapshot.files[number]
        key = str(row["key"].item())
        return CheckedFile(key, tuple(_check_file(snapshot, row, sizes.get(f"{snapshot.spec.namespace}/{key}"))))

    with ThreadPoolExecutor(_READERS) as pool:
        yield from pool.map(check, range(snapshot.files.height))


def _check_file(snapshot: Snapshot, row: pl.DataFrame, size: int | None) -> Iterator[Finding]:
    namespace, key = snapshot.spec.namespace, f"{snapshot.spec.namespace}/{row['key'].item()}"

    def of(kind: str, detail: str) -> Finding:
        return found(kind, namespace, key, detail)

    try:
        data = read_checked(snapshot.store, key)
    except StorageError as error:
        refuse_unanswered(error)
        yield of("file-missing" if size is None else "file-damaged", str(error))
        return
    if len(data) != row["size"].item():
        yield of("file-damaged", f"it has {len(data)} bytes, the log says {row['size'].item()}")
    if named_checksum(key) is None:
        yield of("file-without-checksum", "its name holds no SHA-256")
    try:
        with translated(key, "read"):
            wrong = _wrong_columns(data, snapshot.columns)
            frame = pl.DataFrame() if wrong else pl.read_parquet(io.BytesIO(data))
    except StorageError as error:
        yield of("file-unreadable", str(error))
        return
    if wrong:
        yield of("file-columns", wrong)
        return
    yield from (of(kind, detail) for kind, detail in _contradictions(frame, row, snapshot.all_columns))


def _wrong_columns(data: bytes, columns: Mapping[str, pl.DataType]) -> str | None:
    """Say which columns of a file are not those of the table; a file may lack columns that were added later."""
    import pyarrow.parquet as pq

    expected = {name: dtype for name, dtype in columns.items() if name != PARTITION_COLUMN}
    schema = pl.read_parquet_schema(io.BytesIO(data))
    lacking = [name for name in STANDARD_COLUMNS if name != PARTITION_COLUMN and name not in schema]
    other = [f"{name} is {dtype}" for name, dtype in schema.items() if expected.get(name) != dtype]
    fancy = [field.name for field in pq.read_schema(io.BytesIO(data)) if not _is_plain(field.type)]
    words = [f"it lacks {lacking}" * bool(lacking), f"{other}" * bool(other), f"{fancy} not plain" * bool(fancy)]
    return "; ".join(word for word in words if word) or None


def _is_plain(dtype: "pa.DataType") -> bool:
    """Whether every Delta reader knows a type: no dictionaries, no views."""
    import pyarrow as pa

    if pa.types.is_nested(dtype) and not pa.types.is_dictionary(dtype):
        inner = [dtype.field(number).type for number in range(dtype.num_fields)]
        return "view" not in str(dtype).partition("<")[0] and all(map(_is_plain, inner))
    return not pa.types.is_dictionary(dtype) and "view" not in str(dtype)


def _contradictions(
    frame: pl.DataFrame, row: pl.DataFrame, columns: Mapping[str, pl.DataType]
) -> Iterator[tuple[str, str]]:
    """Hold the rows of a file against what the log says of it: kinds of findings and details."""
    said = row["num_records"].item()
    if said is None:
        yield "file-without-statistics", "the log does not say how many rows it has"
    elif said != frame.height:
        yield "file-rows", f"it has {frame.height} rows, the log says {said}"
    wrong = list(_false_statistics(frame, row, columns))
    if wrong:
        yield "file-statistics", f"not true of its rows: {', '.join(wrong)}"
    root = pl.coalesce(pl.col("ancestors").list.first(), "identifier")
    strangers = frame.filter(root.ne_missing(pl.lit(row[PARTITION_COLUMN].item(), pl.String)))
    if strangers.height:
        yield "file-partition", f"{strangers.height} rows do not descend from {row[PARTITION_COLUMN].item()!r}"
    order = frame.select(SORT_COLUMNS)
    if not order.equals(order.sort(SORT_COLUMNS)):
        yield "file-unsorted", f"its rows are not sorted by {', '.join(SORT_COLUMNS)}"


def _false_statistics(frame: pl.DataFrame, row: pl.DataFrame, columns: Mapping[str, pl.DataType]) -> Iterator[str]:
    """Return the statistics, as readers use them, that are no bounds or null counts of the rows."""
    said = polars_statistics(row, {name: columns[name] for name in frame.columns}).row(0, named=True)
    for name in frame.columns:
        column = frame[name]
        if said.get(f"{name}_nc") not in (None, column.null_count()):
            yield f"null count of {name}"
        low, high = said.get(f"{name}_min"), said.get(f"{name}_max")
        if low is not None and _is_below(column.min(), low):
            yield f"minimum of {name}"
        if high is not None and _is_below(high, column.max()):
            yield f"maximum of {name}"


def _is_below(one: Any, other: Any) -> bool:
    """Whether a value is less than another; a column without values has no bounds to contradict."""
    return one is not None and other is not None and bool(one < other)
