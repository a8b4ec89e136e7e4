"""Files that somebody hands over as resource frames: NDJSON, CSV and Parquet.

Every row is typed and checked as far as the file alone allows; what is wrong with it is named by file, row and field.
What is right is kept in memory, or in Parquet files of a folder of the caller's where it is much.

Source: design of record, section 7; docs/files.md has the rules of each format.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import polars as pl

from vxdata.catalog.table import TableSpec
from vxdata.errors import InvalidInputError, NotFoundError, StorageError, name_some
from vxdata.sources.csv import read_csv
from vxdata.sources.ndjson import read_ndjson
from vxdata.sources.parquet import read_parquet
from vxdata.sources.records import FAULT_SCHEMA, FILE, ROW, Batch, ReadingRules, SourceFile, Typed, no_faults, to_typed

FORMS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
}
"""The suffixes of files, and the form that each says."""

_LOGGER = logging.getLogger(__name__)
SPILL_BYTES = 512 << 20
MOST_FAULTS = 1_000_000
"""More are not gathered: who has so many mends the file as a whole, and memory is bounded."""
FILE_FAULT_SCHEMA = {FILE: pl.Int64(), **FAULT_SCHEMA}


@dataclass(frozen=True)
class FileRows:
    """What files say.

    Attributes:
        files: the files, in the order in which they were read.
        frames: for each type, what it takes, and beside that `FILE` (a position in `files`) and `ROW`.
        faults: what is wrong with rows that are in no frame: `FILE`, `ROW`, field, value, reason.
        counts: how many rows each frame has.
        ignored: the columns that say nothing, since VxData derives them itself.
        named: for each type, the identifiers of rows with faults, as far as they can be told.
        nameless: the faults of rows of which it cannot be told what they are about.
        columns: for each file, what the types in it set.
    """

    files: tuple[SourceFile, ...]
    frames: dict[TableSpec, pl.LazyFrame]
    faults: pl.DataFrame
    counts: dict[TableSpec, int]
    ignored: tuple[str, ...]
    named: dict[TableSpec, pl.Series]
    nameless: pl.DataFrame
    columns: tuple[dict[TableSpec, frozenset[str]], ...]


def find_files(paths: Sequence[str | Path]) -> list[SourceFile]:
    """Find the files that paths on this machine name; folders are searched to their bottom, sorted by name.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: a file of another form, or a folder without any of these forms.
        StorageError: a folder cannot be read.
    """
    found: list[SourceFile] = []
    for path in map(Path, paths):
        if path.is_dir():
            found.extend(_in_folder(path))
        elif path.exists():
            found.append(_local(path, form_of(path.name)))
        else:
            raise NotFoundError(f"there is no file {str(path)!r}.")
    return list(dict.fromkeys(found))


def _local(path: Path, form: str) -> SourceFile:
    """Return a file of this machine; bytes of its name that are no UTF-8 are escaped where it is told."""
    return SourceFile(str(path).encode(errors="backslashreplace").decode(), path, form)


def form_of(name: str) -> str:
    """Return the form that a file's name says.

    Raises:
        InvalidInputError: its suffix is none of the known ones.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in FORMS:
        raise InvalidInputError(f"{name}: a file that ends in {', '.join(FORMS)} is expected.")
    return FORMS[suffix]


def _in_folder(folder: Path) -> list[SourceFile]:
    visible = sorted(p for p in _walked(folder) if p.is_file() and not is_hidden(p.relative_to(folder)))
    found = [_local(p, FORMS[p.suffix.lower()]) for p in visible if p.suffix.lower() in FORMS]
    if not found:
        held = f"; it holds {name_some([p.name for p in visible], 3)}" if visible else ", and nothing else"
        raise InvalidInputError(f"the folder {str(folder)!r} has no file that ends in {', '.join(FORMS)}{held}.")
    if others := [p.name for p in visible if p.suffix.lower() not in FORMS]:
        _LOGGER.warning(
            "the folder %r has files that end in none of %s, and are left out: %s.",
            str(folder), ", ".join(FORMS), name_some(others, 3),
        )  # fmt: skip
    return found


def _walked(folder: Path) -> Iterator[Path]:
    """Return what lies below a folder, links to folders followed, each folder once."""
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> NoReturn:
        raise StorageError(
            f"{error.strerror}; what it holds would be left out.", uri=str(error.filename), operation="read",
            retryable=False,
        ) from error  # fmt: skip

    for root, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        told = os.stat(root)
        if (told.st_dev, told.st_ino) in seen:
            folders.clear()
            continue
        seen.add((told.st_dev, told.st_ino))
        folders[:] = [name for name in folders if not is_hidden(Path(name))]
        yield from (Path(root, name) for name in names)


def is_hidden(path: Path) -> bool:
    """Whether a file below a folder, or a folder on the way to it, is hidden."""
    return any(part.startswith((".", "_")) for part in path.parts)


def read_files(
    files: Sequence[SourceFile],
    rules: ReadingRules,
    folder: Path,
    progress: Callable[[SourceFile, int], None] = lambda file, rows: None,
) -> FileRows:
    """Read files as resource frames.

    Args:
        files: as `find_files` returns them.
        rules: how they are read.
        folder: where what does not fit into memory is kept while the frames are used.
        progress: told after each batch how many rows of a file were read so far.

    Raises:
        InvalidInputError: a file as a whole cannot be read: damaged, not decodable, a column that belongs to no type.
    """
    gathered = _Gathered(folder)
    for position, file in enumerate(files):
        present: set[TableSpec] = set()
        filled: dict[str, None] = {}
        rows = 0
        for batch in _ahead(_batches(file, rules)):
            typed = to_typed(file, batch, rules)
            gathered.add(position, typed, batch.ignored)
            if gathered.fault_count > MOST_FAULTS:
                _refuse_many(files, gathered.faults)
            filled |= dict.fromkeys(batch.rows.columns)
            present |= {*typed.frames}
            rows += batch.rows.height
            progress(file, rows)
        if file.form != "ndjson":  # there a key stands in a row, and is refused in that row
            _refuse_stray(file, filled, present, rules)
        gathered.end_file(file)
    return gathered.to_rows(tuple(files))


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield batches while a thread reads the next one: to read and to check take about as long."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


def _batches(file: SourceFile, rules: ReadingRules) -> Iterator[Batch]:
    try:
        match file.form:
            case "csv":
                yield from read_csv(file, rules)
            case "ndjson":
                yield from read_ndjson(file, rules)
            case _:
                yield from read_parquet(file)
    except OSError as error:
        raise InvalidInputError(f"{file.name} cannot be read: {error.strerror or error}.") from error


def _refuse_stray(file: SourceFile, columns: dict[str, None], present: set[TableSpec], rules: ReadingRules) -> None:
    """Refuse a file with a column that none of the types in it has, though another type has it."""
    if not present or {"_file", "_row", "_reason"} <= columns.keys():  # rejects of one type, of a file of several
        return
    own = {name for spec in present for name in spec.fields}
    for name in columns:
        owners = [spec.namespace for spec in rules.specs if name in spec.fields]
        if owners and name not in own:
            held = " and ".join(sorted(spec.namespace for spec in present))
            raise InvalidInputError(
                f"{file.name} holds {held}, which have no field {name!r}; {' and '.join(owners)} have it."
            )


def _refuse_many(files: Sequence[SourceFile], faults: list[pl.DataFrame]) -> None:
    """Refuse files with more faults than a report shall hold in memory."""
    first = next(part for part in faults if part.height).row(0, named=True)
    raise InvalidInputError(
        f"the files have more than {MOST_FAULTS:,} faults, more than a report holds, so nothing was written. The first "
        f"in {files[first[FILE]].name}, row {first[ROW]}, {first['field']}: {first['value']!r}: {first['reason']}. "
        "Mend them, or the options that they are read with, or load them in parts."
    )


@dataclass
class _Gathered:
    """The frames while files are read; what exceeds the limit goes to Parquet files."""

    folder: Path
    held: dict[TableSpec, list[pl.DataFrame]] = field(default_factory=dict)
    parts: dict[TableSpec, list[pl.LazyFrame]] = field(default_factory=dict)
    faults: list[pl.DataFrame] = field(default_factory=list)
    nameless: list[pl.DataFrame] = field(default_factory=list)
    named: dict[TableSpec, list[pl.Series]] = field(default_factory=dict)
    counts: dict[TableSpec, int] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)
    columns: dict[TableSpec, tuple[str, frozenset[str]]] = field(default_factory=dict)
    by_file: list[dict[TableSpec, frozenset[str]]] = field(default_factory=list)
    in_file: dict[TableSpec, set[str]] = field(default_factory=dict)
    fault_count: int = 0
    bytes_held: int = 0
    spilled: int = 0

    def add(self, position: int, typed: Typed, ignored: frozenset[str]) -> None:
        """Keep the typed rows and the faults of a batch of the file at a position."""
        mark = pl.lit(position, pl.Int64).alias(FILE)
        self.faults.append(typed.faults.select(mark, pl.all()))
        self.nameless.append(typed.nameless.select(mark, pl.all()))
        self.fault_count += typed.faults.height
        self.ignored |= ignored
        for spec, named in typed.named.items():
            self.named.setdefault(spec, []).append(named)
        for spec, frame in typed.frames.items():
            self.in_file.setdefault(spec, set()).update(frame.columns)
            self.held.setdefault(spec, []).append(frame.select(mark, pl.all()))
            self.counts[spec] = self.counts.get(spec, 0) + frame.height
            self.bytes_held += int(frame.estimated_size())
        if self.bytes_held > SPILL_BYTES:
            self._spill()

    def end_file(self, file: SourceFile) -> None:
        """Refuse a file that sets other columns of a type than an earlier one: null would clear what it lacks.

        Raises:
            InvalidInputError: it does.
        """
        for spec, found in self.in_file.items():
            name, columns = self.columns.setdefault(spec, (file.name, frozenset(found)))
            if columns != found:
                raise InvalidInputError(
                    f"{file.name} and {name} set different fields of {spec.namespace} "
                    f"({name_some(sorted(columns ^ found), 5)}), and a missing field stays as it is, while an empty "
                    "one is cleared. Load them one after the other."
                )
        self.by_file.append({spec: frozenset(found) - {ROW} for spec, found in self.in_file.items()})
        self.in_file.clear()

    def _spill(self) -> None:
        for spec, frames in self.held.items():
            path = self.folder / f"{spec.namespace}-{self.spilled}.parquet"
            pl.concat(frames, how="diagonal").write_parquet(path, compression="lz4")
            self.parts.setdefault(spec, []).append(pl.scan_parquet(path, glob=False, hive_partitioning=False))
        self.spilled += 1
        self.bytes_held = 0
        self.held.clear()

    def to_rows(self, files: tuple[SourceFile, ...]) -> FileRows:
        """Return what was gathered, root first."""
        frames = {}
        for spec in self.counts:
            held = [frame.lazy() for frame in self.held.get(spec, [])]
            frames[spec] = pl.concat([*self.parts.get(spec, []), *held], how="diagonal")
        named = {spec: pl.concat(parts).unique() for spec, parts in self.named.items()}
        faults, nameless = _in_order(self.faults), _in_order(self.nameless)
        return FileRows(files, frames, faults, self.counts, (*sorted(self.ignored),), named, nameless, (*self.by_file,))


def _in_order(faults: list[pl.DataFrame]) -> pl.DataFrame:
    nothing = no_faults().select(pl.lit(0, pl.Int64).alias(FILE), pl.all())
    return pl.concat([nothing, *faults]).sort(FILE, ROW, maintain_order=True)
