"""Traces of a resource: the rows, live or not, that are of it or of its descendants, and those that point there.

Everything that an erasure needs to know is read off the data files themselves, the superseded and the uncommitted ones
included, because they outlast the rows in the log: an erasure that was killed finds again what it began with.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import polars as pl

from vxdata.catalog.table import LINEAGE_COLUMNS, PARTITION_COLUMN, TableSpec, all_specs, descendant_specs
from vxdata.errors import StorageError
from vxdata.lake.faults import refuse_unanswered, translated
from vxdata.lake.lake import View
from vxdata.lake.passes import distinct_texts
from vxdata.lake.snapshot import NO_TABLE, Snapshot
from vxdata.lake.statistics import TEXT_BOUND
from vxdata.lake.store import StoredObject
from vxdata.schemas.identifiers import type_of
from vxdata.schemas.registry import STANDARD_COLUMNS

_DATA_FILE = re.compile(rf"{PARTITION_COLUMN}=[^/]+/[^/]+\.parquet$")
Found = TypeVar("Found")

_BLOB_COLUMNS = re.compile(r"^(path|uri|url)(_|$)|_(path|uri|url)$")


def is_data_file(path: str) -> bool:
    """Whether a file is one of a partition's data files, by its path inside the table's folder."""
    return _DATA_FILE.match(path) is not None


@dataclass(frozen=True)
class TableTraces:
    """What one table holds of a resource and of its descendants.

    Attributes:
        spec: the table.
        live: keys of the live files that hold such rows, or point to such resources.
        dead: the other data files there that do: superseded ones, and those that no commit names.
        rows, versions: how many such rows, and how many versions among them, the live files hold.
        identifiers: of all such rows, in live and dead files.
        staying: those among them that other rows have as well: at another time they lay elsewhere.
        pointing: identifiers of the live rows that point there from elsewhere: those that stay.
        blobs: addresses of blobs that only such rows have.
        unreadable: keys, in the lake, of dead files that cannot be read as data files of the table.
        values: for each column the texts of such rows that no other row has, as long as statistics hold them.
    """

    spec: TableSpec
    live: tuple[str, ...] = ()
    dead: tuple[StoredObject, ...] = ()
    rows: int = 0
    versions: int = 0
    identifiers: frozenset[str] = frozenset()
    staying: frozenset[str] = frozenset()
    pointing: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    values: Mapping[str, pl.Series] = field(default_factory=dict, compare=False)

    @property
    def gone(self) -> frozenset[str]:
        """The identifiers that nothing has once such rows are erased."""
        return self.identifiers - self.staying

    @property
    def doomed(self) -> set[str]:
        """The keys of all files that hold traces."""
        return {*self.live, *(found.key.removeprefix(f"{self.spec.namespace}/") for found in self.dead)}


@dataclass(frozen=True)
class Traces:
    """What a lake holds of a resource and of its descendants, table by table, root first."""

    identifier: str
    tables: tuple[TableTraces, ...] = field(default=())

    @property
    def identifiers(self) -> frozenset[str]:
        """The resource and its descendants, found anywhere, that are nothing else's descendants as well."""
        return frozenset({self.identifier}).union(*(table.gone for table in self.tables))

    @property
    def is_live(self) -> bool:
        """Whether live files hold any."""
        return any(table.live for table in self.tables)

    @property
    def is_empty(self) -> bool:
        """Whether no file holds any."""
        return not any(table.doomed for table in self.tables)


def is_of(identifier: str) -> pl.Expr:
    """Return the filter of the rows of a resource and of its descendants, whatever became of them."""
    return (pl.col("identifier") == identifier) | pl.col("ancestors").list.contains(identifier).fill_null(False)


def find_traces(view: View, root: TableSpec, identifier: str) -> Traces:
    """Look through all data files of a lake.

    Args:
        view: the newest state.
        root: the table of the resource.
        identifier: the resource.
    """
    below = {root, *descendant_specs(root.type_name)}
    snapshots = [view.snapshot(spec) for spec in all_specs()]
    existing = [_Files.of(snapshot) for snapshot in snapshots if snapshot.version != NO_TABLE]

    def look(files: list[_Files]) -> Traces:
        own = [found.of_resource(identifier, found.snapshot.spec in below) for found in files]
        others = [found.others(rows, identifier) for found, rows in zip(files, own, strict=True)]
        staying = (found.staying(rows) for found, rows in zip(files, others, strict=True))
        names = frozenset({identifier}).union(*(rows["identifier"] for rows in own)).difference(*staying)
        found = zip(files, own, others, strict=True)
        return Traces(identifier, tuple(_in_table(*one, names, identifier, with_texts=True) for one in found))

    return _looked(existing, look)


def find_in_table(snapshot: Snapshot, identifier: str, names: frozenset[str]) -> TableTraces:
    """Look through all data files of one table, but not for `blobs` and `values`.

    Args:
        snapshot: its newest state.
        identifier: the resource.
        names: the resource and its known descendants in all tables.
    """

    def look(tables: list[_Files]) -> TableTraces:
        (files,) = tables
        own = files.of_resource(identifier, True)
        others = files.others(own, identifier)
        names_here = names.union(own["identifier"]) - files.staying(others)
        return _in_table(files, own, others, names_here, identifier, with_texts=False)

    return _looked([_Files.of(snapshot)], look)


def _looked(files: "list[_Files]", look: "Callable[[list[_Files]], Found]") -> Found:
    """Look through files, all together; if that fails, through those that can be read, judged one by one."""
    try:
        return look(files)
    except StorageError as error:
        refuse_unanswered(error)
        return look([found.readable() for found in files])


def _lineage_of(identifier: str) -> pl.Expr | None:
    """Return the same filter by the lineage column, where the type has one: row groups are skipped by it."""
    column = LINEAGE_COLUMNS.get(type_of(identifier))
    return None if column is None else pl.col(column) == identifier


@dataclass(frozen=True)
class _Files:
    """All data files of a table that the store lists, and which of them are live."""

    snapshot: Snapshot
    objects: dict[str, StoredObject]
    unreadable: tuple[str, ...] = ()

    @classmethod
    def of(cls, snapshot: Snapshot) -> "_Files":
        namespace = snapshot.spec.namespace
        listed = ((found.key.removeprefix(f"{namespace}/"), found) for found in snapshot.store.list_objects(namespace))
        return cls(snapshot, {key: found for key, found in listed if is_data_file(key)})

    @property
    def live(self) -> set[str]:
        return set(self.snapshot.files["key"])

    def readable(self) -> "_Files":
        """Return the same without the dead files that cannot be read; those that are gone meanwhile are none.

        Raises:
            StorageError: a live file cannot be read.
        """
        live, sound, unreadable = self.live, {}, []
        for key, found in self.objects.items():
            try:
                self.snapshot.collect(self._rows_of({key: found}))
            except StorageError as error:
                refuse_unanswered(error)
                if key in live:
                    raise StorageError(
                        f"the data file {found.key} cannot be read ({error}). Restore it from a backup; 'vxdata "
                        "verify' lists all that is damaged.",
                        uri=self.snapshot.store.uri, operation="erase from", retryable=False,
                    ) from error  # fmt: skip
                if self.snapshot.store.exists(found.key):
                    unreadable.append(found.key)
            else:
                sound[key] = found
        return replace(self, objects=sound, unreadable=tuple(sorted(unreadable)))

    def rows(self) -> pl.LazyFrame:
        """Return the rows of all files, with the key of each row's file."""
        return self._rows_of(self.objects)

    def _rows_of(self, objects: Mapping[str, StoredObject]) -> pl.LazyFrame:
        frame = pl.DataFrame(
            [(key, found.size) for key, found in objects.items()],
            schema={"key": pl.String(), "size": pl.Int64()},
            orient="row",
        )
        if frame.is_empty():
            return self.snapshot.rows_of(frame).with_columns(pl.lit(None, pl.String).alias(":file"))
        keys = {self.snapshot.file_url(key): key for key in objects}
        rows = self.snapshot.rows_of(frame, path_column=":url")
        named = pl.col(":url").replace_strict(list(keys), list(keys.values()), return_dtype=pl.String)
        return rows.with_columns(named.alias(":file")).drop(":url")

    def own(self, identifier: str) -> pl.LazyFrame:
        """Return the rows of a resource and of its descendants."""
        lineage = _lineage_of(identifier)
        return self.rows().filter(is_of(identifier) if lineage is None else lineage)

    def of_resource(self, identifier: str, may_hold: bool) -> pl.DataFrame:
        """Return which rows are of a resource and of its descendants: identifier, is_deleted, :file.

        Args:
            identifier: the resource.
            may_hold: whether the table may hold any.
        """
        rows = self.own(identifier) if may_hold else self.rows().head(0)
        return self.snapshot.collect(rows.select("identifier", "is_deleted", ":file"))

    def others(self, own: pl.DataFrame, identifier: str) -> pl.DataFrame:
        """Return the other rows that have an identifier of a resource's descendants: identifier, :file.

        Args:
            own: the rows of the resource and of its descendants.
            identifier: the resource.
        """
        names = own["identifier"].unique().to_list()
        rows = (
            self.rows().filter(pl.col("identifier").is_in(names), ~is_of(identifier)) if names else self.rows().head(0)
        )
        return self.snapshot.collect(rows.select("identifier", ":file"))

    def staying(self, others: pl.DataFrame) -> frozenset[str]:
        """Return the identifiers of other rows that are committed: a file that no commit names proves nothing."""
        return frozenset(others.filter(pl.col(":file").is_in(list(self.live)))["identifier"])


def list_columns(snapshot: Snapshot) -> list[str]:
    """Return the payload's lists of texts: what may point to other resources."""
    columns = snapshot.all_columns.items()
    return [name for name, dtype in columns if dtype == pl.List(pl.String()) and name not in STANDARD_COLUMNS]


def points_to(columns: Iterable[str], identifiers: frozenset[str]) -> pl.Expr:
    """Return the filter of the rows whose lists hold any of some identifiers."""
    names = pl.Series(sorted(identifiers), dtype=pl.String).implode()
    return pl.any_horizontal(
        pl.lit(False),
        *(pl.col(name).list.eval(pl.element().is_in(names)).list.any().fill_null(False) for name in columns),
    )


def _in_table(
    files: _Files,
    own: pl.DataFrame,
    others: pl.DataFrame,
    names: frozenset[str],
    identifier: str,
    *,
    with_texts: bool,
) -> TableTraces:
    lists, live, staying = list_columns(files.snapshot), files.live, files.staying(others)
    pointing = pl.DataFrame(schema={"identifier": pl.String(), ":file": pl.String()})
    if lists:
        found = files.rows().filter(points_to(lists, names), ~is_of(identifier))
        pointing = files.snapshot.collect(found.select("identifier", ":file"))
    abandoned = others.filter(~pl.col("identifier").is_in(list(staying)))  # in files that are not live
    holding = {*own[":file"], *pointing[":file"], *abandoned[":file"]}
    current, near = (rows.filter(pl.col(":file").is_in(list(live))) for rows in (own, pointing))
    texts = {} if own.is_empty() or not with_texts else _texts_of(files, identifier)
    return TableTraces(
        files.snapshot.spec,
        tuple(sorted(holding & live)),
        tuple(files.objects[key] for key in sorted(holding - live)),
        current.height,
        int((~current["is_deleted"]).sum()),
        frozenset(own["identifier"]),
        staying,
        tuple(near["identifier"].unique().sort()),
        _blobs(files.snapshot, identifier, texts),
        files.unreadable,
        _own_values(files, identifier, texts),
    )


def _text_columns(snapshot: Snapshot) -> list[str]:
    return [name for name, dtype in snapshot.all_columns.items() if dtype == pl.String()]


def _texts_of(files: _Files, identifier: str) -> dict[str, pl.Series]:
    """Return the texts that the rows of a resource and of its descendants have, by column, each once."""
    texts = _distinct(files.snapshot, files.own(identifier), dict.fromkeys(_text_columns(files.snapshot)))
    return {name: values for name, values in texts.items() if len(values)}


def _blobs(snapshot: Snapshot, identifier: str, texts: Mapping[str, pl.Series]) -> tuple[str, ...]:
    """Return the addresses that such rows have, and no row of the live files that stays."""
    columns = [name for name in _text_columns(snapshot) if _BLOB_COLUMNS.search(name)]
    found = pl.Series([text for name in columns for text in texts.get(name, ())], dtype=pl.String)
    if found.is_empty():
        return ()
    used = _distinct(snapshot, snapshot.rows.filter(~is_of(identifier)), dict.fromkeys(columns, found))
    return tuple(sorted(set(found).difference(*used.values())))


def _own_values(files: _Files, identifier: str, texts: Mapping[str, pl.Series]) -> dict[str, pl.Series]:
    """Return the texts that only such rows have, by column: statistics in the log may hold them."""
    own = {name: values for name, values in texts.items() if name in files.snapshot.spec.fields}
    shared = _distinct(files.snapshot, files.rows().filter(~is_of(identifier)), own)
    return {
        name: values.filter(~values.is_in(shared[name].implode())).str.slice(0, TEXT_BOUND).unique()
        for name, values in own.items()
    }


def _distinct(snapshot: Snapshot, rows: pl.LazyFrame, among: Mapping[str, pl.Series | None]) -> dict[str, pl.Series]:
    with translated(snapshot.store.uri, f"read {snapshot.spec.namespace} of"):
        return distinct_texts(rows, among)
