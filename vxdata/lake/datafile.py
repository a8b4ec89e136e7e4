"""Data files: rows of one partition as Parquet, sorted by identifier, named by their SHA-256.

Source: design of record, section 5 (files).
"""

import hashlib
import io
import re
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from polars import selectors as cs

from vxdata.catalog.table import PARTITION_COLUMN, partition_folder
from vxdata.errors import StorageError
from vxdata.lake.statistics import file_statistics
from vxdata.lake.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP_ROWS = 8_000
FILE_ROWS = 250_000
SORT_COLUMNS = ("identifier", "valid_from")
_WRITERS, _READERS = 4, 4
_NAME = re.compile(r"-([0-9a-f]{64})\.parquet$")


@dataclass(frozen=True)
class DataFile:
    """One data file that was written and is not yet in the log.

    Attributes:
        key: the object's key inside the table's folder, not URL-encoded.
        datasource_id: the partition.
        size: bytes.
        statistics: the `stats` text of its add action.
        modified: milliseconds since 1970.
    """

    key: str
    datasource_id: str
    size: int
    statistics: str
    modified: int


def write_data_files(store: Store, namespace: str, rows: pl.DataFrame) -> list[DataFile]:
    """Write rows as data files, one or more for each partition; nothing is visible until a commit names them.

    Args:
        store: the lake's store.
        namespace: the table.
        rows: physical rows, the partition column included.
    """
    return write_parts(store, namespace, _parts(rows), _WRITERS)


def write_parts(
    store: Store, namespace: str, parts: Iterable[tuple[str, pl.DataFrame]], writers: int
) -> list[DataFile]:
    """Write the rows of each data file, given with its partition, some at once; see `write_data_files`."""
    files, under_way = [], deque[Future[DataFile]]()
    with ThreadPoolExecutor(writers) as pool:
        for datasource_id, part in parts:
            if len(under_way) == writers:  # so that only a few parts are in memory twice
                files.append(under_way.popleft().result())
            under_way.append(pool.submit(write_data_file, store, namespace, datasource_id, part))
        return files + [future.result() for future in under_way]


def _parts(rows: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Return the rows of each data file, sorted; gathered anew, because a slice would drag its whole column along."""
    order = rows.select(PARTITION_COLUMN, *SORT_COLUMNS).with_row_index("_row").sort(PARTITION_COLUMN, *SORT_COLUMNS)
    columns = rows.drop(PARTITION_COLUMN)
    for (datasource_id,), part in order.partition_by(PARTITION_COLUMN, maintain_order=True, as_dict=True).items():
        for start in range(0, part.height, FILE_ROWS):
            yield str(datasource_id), columns[part["_row"].slice(start, FILE_ROWS)]


def write_data_file(store: Store, namespace: str, datasource_id: str, part: pl.DataFrame) -> DataFile:
    """Write sorted rows of one partition, without the partition column, as one data file."""
    data = encode_parquet(part)
    key = f"{partition_folder(datasource_id)}/{uuid.uuid4().hex}-{hashlib.sha256(data).hexdigest()}.parquet"
    store.put(f"{namespace}/{key}", data)
    return DataFile(key, datasource_id, len(data), file_statistics(part), int(time.time() * 1000))


def encode_parquet(frame: pl.DataFrame) -> bytes:
    """Encode rows as Parquet, zstd, 8,000 rows a row group; as no Arrow schema goes along, texts are plain strings."""
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(
        _to_arrow(frame),
        sink,
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
        use_dictionary=_repeating(frame),
        sorting_columns=[pq.SortingColumn(frame.columns.index(name)) for name in SORT_COLUMNS],
        write_page_checksum=True,
        store_schema=False,
    )
    return sink.getvalue()


def _to_arrow(frame: pl.DataFrame) -> "pa.Table":
    """Return a frame as an Arrow table: texts as views, without a copy, but inside lists and structs.

    PyArrow cannot encode all nested views ("Slicing not implemented for StringView").
    """
    import pyarrow as pa

    is_nested = cs.by_dtype(pl.List, pl.Struct)
    flat = frame.select(~is_nested).to_arrow(compat_level=pl.CompatLevel.newest())
    nested = frame.select(is_nested).to_arrow(compat_level=pl.CompatLevel.oldest())
    columns = dict(zip(flat.column_names + nested.column_names, flat.columns + nested.columns, strict=True))
    return pa.table({name: columns[name] for name in frame.columns})


def _repeating(frame: pl.DataFrame) -> list[str]:
    """Return the leaf columns that repeat values, by a sample: a dictionary of all others costs time and space."""
    sample = frame.head(ROW_GROUP_ROWS)
    counted = sample.select(pl.col(pl.String).n_unique()).row(0, named=True) if sample.height else {}
    return [
        leaf
        for name, dtype in frame.schema.items()
        if counted.get(name) != sample.height and frame[name].null_count() < frame.height
        for leaf in _leaves(name, dtype)
    ]


def _leaves(path: str, dtype: pl.DataType) -> list[str]:
    """Return the paths of a column's leaves in a Parquet schema."""
    match dtype:
        case pl.List():
            return _leaves(f"{path}.list.element", dtype.inner)  # type: ignore[arg-type]
        case pl.Struct():
            return [leaf for f in dtype.fields for leaf in _leaves(f"{path}.{f.name}", f.dtype)]  # type: ignore[arg-type]
    return [path]


def named_checksum(key: str) -> str | None:
    """Return the SHA-256 that a data file's name ends in; None for a file of another writer."""
    found = _NAME.search(key)
    return found.group(1) if found else None


def checked_parts(store: Store, key: str) -> Iterator[bytes]:
    """Return a data file's bytes in parts, held against the checksum in its name after the last one.

    Args:
        store: the lake's store.
        key: the file's key in the lake.

    Raises:
        StorageError: the file is missing, or its bytes are not those that were written.
    """
    digest = hashlib.sha256()
    for part in store.stream(key):
        digest.update(part)
        yield part
    if named_checksum(key) not in (None, digest.hexdigest()):
        raise StorageError(
            f"the data file {key} is damaged: its checksum is wrong. Restore it from a backup, or by the bucket's "
            "versions; 'vxdata verify' lists all that is damaged.",
            uri=store.uri, operation="read", retryable=False,
        )  # fmt: skip


def read_checked(store: Store, key: str) -> bytes:
    """Return a data file's bytes after holding them against the checksum in its name; see `checked_parts`."""
    return b"".join(checked_parts(store, key))


class CheckedFiles:
    """Data files of one table as local files, each held against its checksum before it is read."""

    def __init__(self, store: Store, namespace: str, folder: Path) -> None:
        own = store.local_folder(namespace)
        self._store, self._namespace, self._is_copied = store, namespace, own is None
        self._root = folder if own is None else own
        self._checked: set[str] = set()

    def root(self, keys: Iterable[str]) -> Path:
        """Return the local folder to read data files from.

        Args:
            keys: the files, by their keys inside the table's folder; what was checked before is not checked again.

        Raises:
            StorageError: a file is missing, or its bytes are not those that were written.
        """
        fresh = set(keys) - self._checked
        with ThreadPoolExecutor(_READERS) as pool:
            list(pool.map(self._check, fresh))
        self._checked |= fresh
        return self._root

    def _check(self, key: str) -> None:
        copy = self._root / key if self._is_copied else None
        if copy is not None:
            copy.parent.mkdir(parents=True, exist_ok=True)
        with nullcontext() if copy is None else copy.open("wb") as sink:
            for part in checked_parts(self._store, f"{self._namespace}/{key}"):
                if sink is not None:
                    sink.write(part)


@contextmanager
def checked_files(store: Store, namespace: str) -> Iterator[CheckedFiles]:
    """Return a table's data files as local ones: copies of remote files, a local lake's files where they are."""
    with tempfile.TemporaryDirectory(prefix="vxdata-") as folder:
        yield CheckedFiles(store, namespace, Path(folder))
