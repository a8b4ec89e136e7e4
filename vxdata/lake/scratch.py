"""A temporary folder for rows that do not fit into memory: sorted Parquet files, read back piece by piece."""

import tempfile
from itertools import count
from pathlib import Path
from types import TracebackType

import polars as pl

from vxdata.lake.faults import translated

_GROUP_ROWS = 4_000  # small, so that a range of a sorted file is read without its neighbours


class Scratch:
    """A temporary folder that is made when something is first kept in it, and removed at the end.

    It lies where `TMPDIR` says; a kill leaves it there, and nothing of it in the lake.
    """

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._names = count()

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def keep(self, rows: pl.DataFrame) -> pl.LazyFrame:
        """Write rows to a file, and return them lazily.

        Raises:
            StorageError: the disk is full, or the folder cannot be written to.
        """
        with translated(tempfile.gettempdir(), "keep rows that exceed memory in the temporary folder (TMPDIR)"):
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="vxdata-")
            path = Path(self._folder.name, f"{next(self._names)}.parquet")
            rows.write_parquet(path, compression="lz4", row_group_size=_GROUP_ROWS)
        return pl.scan_parquet(path, schema=rows.schema, glob=False, hive_partitioning=False)


def read_kept(kept: pl.LazyFrame) -> pl.DataFrame:
    """Read rows back that a scratch keeps.

    Raises:
        StorageError: the folder cannot be read any more.
    """
    with translated(tempfile.gettempdir(), "read back rows kept in the temporary folder (TMPDIR)"):
        return kept.collect()
