"""Namespaces: the verbs on the resources of one type, and `resources` for any type.

What only some verbs need is imported in them, so that a process that reads does not load what writes.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

import polars as pl

from vxdata.catalog.table import PARTITION_COLUMN, TableSpec, table_spec
from vxdata.errors import InvalidInputError, NotFoundError, did_you_mean
from vxdata.lake import scd2
from vxdata.schemas.identifiers import check_identifier, type_of
from vxdata.schemas.payload import Payload
from vxdata.schemas.registry import registry
from vxdata.schemas.resource import Resource
from vxdata.schemas.response import ResourceResponse
from vxdata.sdk.convert import to_responses
from vxdata.sdk.session import Session, check_flags

if TYPE_CHECKING:
    from vxdata.lake.delete import DeleteReport
    from vxdata.lake.lacking import UpsertOptions
    from vxdata.lake.lake import Lake
    from vxdata.lake.restore import RestoreReport
    from vxdata.lake.upsert import UpsertReport
    from vxdata.sdk.query import Query
    from vxdata.sdk.tree import Tree

ResponseT = TypeVar("ResponseT", bound=ResourceResponse[Any])


class _Unset:
    """Says that a keyword was not given, where None means to clear."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = _Unset()


class Resources(Generic[ResponseT]):
    """The verbs on resources of any type."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @overload
    def create(self, resources: Resource, *, reason: str | None = None) -> ResponseT: ...
    @overload
    def create(self, resources: Sequence[Resource], *, reason: str | None = None) -> list[ResponseT]: ...
    def create(
        self, resources: Resource | Sequence[Resource], *, reason: str | None = None
    ) -> ResponseT | list[ResponseT]:
        """Create one resource or many; all are validated before anything is written, tables are committed root first.

        Args:
            resources: one resource, or a list that may mix types and hold parents and children in any order.
            reason: why, for the audit log.

        Returns:
            One response, or a list in the same order.

        Raises:
            AlreadyExistsError: an identifier is live.
            NotFoundError: a parent is not live and not in the list.
            InvalidInputError: a parent of a wrong type, or one identifier with two states.
            ConflictError: a parent was deleted at the same time.
        """
        from vxdata.lake.create import create
        from vxdata.sdk.convert import wanted_of

        if isinstance(resources, Resource):
            return self.create([resources], reason=reason)[0]
        stamp = self._session.stamp("create", reason)
        resources = _listed("create", resources, "a Resource, or a list of them,")
        for resource in resources:
            if not isinstance(resource, Resource):
                raise InvalidInputError(f"create: a Resource is expected, not {resource!r}.")
            self._spec_of(resource.identifier)
        if not resources:
            return []
        wanted = wanted_of(resources)
        rows = create(self._session.lake, wanted, stamp)
        found = {r.identifier: r for spec in wanted for r in to_responses(spec, rows[spec.namespace])}
        return cast("list[ResponseT]", [found[resource.identifier] for resource in resources])

    @overload
    def retrieve(self, identifiers: str) -> ResponseT: ...
    @overload
    def retrieve(self, identifiers: list[str] | tuple[str, ...]) -> list[ResponseT]: ...
    def retrieve(self, identifiers: str | list[str] | tuple[str, ...]) -> ResponseT | list[ResponseT]:
        """Return the current version of one resource or of many.

        Args:
            identifiers: one identifier, or a list.

        Returns:
            One response, or a list in the same order.

        Raises:
            NotFoundError: some are not live; names all of them, and when they were deleted.
            InvalidInputError: an identifier is malformed or of another type.
        """
        if isinstance(identifiers, str):
            return self.retrieve([identifiers])[0]
        asked = _listed("retrieve", identifiers, "an identifier, or a list of them,")
        specs = {identifier: self._spec_of(identifier) for identifier in asked}
        found: dict[str, ResourceResponse[Any]] = {}
        for spec in dict.fromkeys(specs.values()):
            rows = self._seen(spec, pl.Series([i for i in specs if specs[i] == spec], dtype=pl.String))
            found |= {response.identifier: response for response in to_responses(spec, rows)}
        missing = [identifier for identifier in specs if identifier not in found]
        if missing:
            from vxdata.lake.past import describe_missing

            words = describe_missing(self._session.view, pl.Series(missing), self._session.instant)
            raise NotFoundError(f"not found: {words}.")
        return cast("list[ResponseT]", [found[identifier] for identifier in asked])

    def _seen(self, spec: TableSpec, identifiers: pl.Series) -> pl.DataFrame:
        """Return the rows of some identifiers as this client sees them."""
        snapshot = self._session.view.snapshot(spec)
        if self._session.instant is None:
            return snapshot.current_of(identifiers)
        rows = snapshot.history_of(identifiers).lazy()
        return scd2.as_of(rows, scd2.closings_of(rows), self._session.instant).collect()

    def history(self, identifier: str) -> list[ResponseT]:
        """Return all versions of a resource, oldest first, with their ends; a gap shows where it was deleted.

        Raises:
            NotFoundError: it never existed.
        """
        spec = self._spec_of(identifier)
        rows = self._session.view.snapshot(spec).history_of([identifier]).lazy()
        found = scd2.versions(rows, scd2.closings_of(rows), self._session.instant).sort("valid_from").collect()
        if found.is_empty():
            raise NotFoundError(f"{identifier!r} does not exist.")
        return cast("list[ResponseT]", to_responses(spec, found))

    def changes(self, identifier: str) -> pl.DataFrame:
        """Return what happened to a resource, oldest first, field by field, with who did it and why.

        Returns:
            One row for each field that a change set (one row with a null field for a delete): valid_from (when),
            valid_to (until when that state held), operation (created, updated, deleted), field, before, after (as
            text; lists and nested models as JSON), author, reason, commit_id (null where nobody knows any more).

        Raises:
            NotFoundError: it never existed.
        """
        from vxdata.sdk.changes import read_changes

        return read_changes(self._session, self._spec_of(identifier), identifier)

    def tree(self, identifier: str, *, depth: int = 1, limit: int = 20) -> "Tree":
        """Return what lies below a resource: its live descendants down to a depth, and counts of all of them by type.

        Args:
            identifier: the resource.
            depth: how many levels are listed; 1 for the children alone.
            limit: how many children of each resource are listed at most.

        Raises:
            NotFoundError: the resource is not live.
        """
        from vxdata.sdk.tree import read_tree

        return read_tree(self._session, self._spec_of(identifier), identifier, depth, limit)

    def update(
        self,
        identifier: str,
        changes: Mapping[str, Any] | Payload | None = None,
        *,
        license: str | _Unset | None = UNSET,
        expected_valid_from: str | datetime | None = None,
        reason: str | None = None,
    ) -> ResponseT:
        """Change a resource; what is not given stays, what is given as None is cleared.

        Args:
            identifier: the resource.
            changes: a mapping, or a payload model whose set fields count.
            license: the new license.
            expected_valid_from: the version that the change was decided on, UTC.
            reason: why, for the audit log.

        Returns:
            The new version; the current one if nothing changed.

        Raises:
            NotFoundError: the resource is not live, or was deleted meanwhile.
            ConflictError: the current version is not the expected one; nothing was written.
            InvalidInputError: an unknown field or a value of a wrong type.
        """
        from vxdata.lake.update import update
        from vxdata.sdk.convert import wanted_changes
        from vxdata.sdk.query import read_instant

        stamp = self._session.stamp("update", reason)
        if license is not UNSET and license is not None and not isinstance(license, str):
            raise InvalidInputError(f"update: license={license!r}: a text or None is expected.")
        spec = self._spec_of(identifier)
        wanted = wanted_changes(spec, identifier, changes, {} if isinstance(license, _Unset) else {"license": license})
        expected = None if expected_valid_from is None else read_instant(expected_valid_from)
        row = update(self._session.lake, spec, wanted, expected, stamp)
        return cast("ResponseT", to_responses(spec, row)[0])

    def delete(self, identifier: str, *, cascade: bool = False, reason: str | None = None) -> "DeleteReport":
        """Close the current version of a resource; its history stays, and it can be created again.

        Args:
            identifier: the resource.
            cascade: whether to close all its descendants too, deepest first.
            reason: why, for the audit log.

        Raises:
            NotFoundError: the resource is not live.
            InvalidInputError: it has live children and `cascade` is false; counts them. Or there is a table whose type
                is not registered here: it may hold children.
            ConflictError: a child came while it was deleted.
        """
        from vxdata.lake.delete import delete

        check_flags("delete", cascade=cascade)
        stamp = self._session.stamp("delete", reason)
        return delete(self._session.lake, self._spec_of(identifier), identifier, cascade, stamp)

    def restore(self, identifier: str, *, dry_run: bool = False, reason: str | None = None) -> "RestoreReport":
        """Bring back a deleted resource, and those descendants that the same delete closed, as new versions.

        They come back with their last content. A descendant that was created again meanwhile stays as it is, and the
        report says so. A restore that was cut off is finished by running it again.

        Args:
            identifier: the resource.
            dry_run: whether to write nothing, and only say what would come back.
            reason: why, for the audit log.

        Raises:
            AlreadyExistsError: the resource is live.
            NotFoundError: it never existed, or its parent is not live.
            InvalidInputError: there is a table whose type is not registered here.
            ConflictError: a parent was deleted at the same time.
        """
        from vxdata.lake.restore import restore

        check_flags("restore", dry_run=dry_run)
        stamp = self._session.stamp("restore", reason)
        return restore(self._session.lake, self._spec_of(identifier), identifier, dry_run, stamp)

    def _spec_of(self, identifier: str) -> TableSpec:
        return table_spec(registry().of_type(type_of(check_identifier(identifier))))


class Namespace(Resources[ResponseT]):
    """The verbs on resources of one type."""

    def __init__(self, session: Session, payload: type[Payload]) -> None:
        super().__init__(session)
        self._spec = table_spec(payload)

    def _spec_of(self, identifier: str) -> TableSpec:
        spec = super()._spec_of(identifier)
        if spec != self._spec:
            raise InvalidInputError(
                f"client.{self._spec.namespace}: {identifier!r} is a {spec.type_name!r}; use client.{spec.namespace}."
            )
        return spec

    def query(self) -> "Query[ResponseT]":
        """Return a query over all resources of this type."""
        from vxdata.expr.select import Select
        from vxdata.sdk.query import Query

        return Query(self._session, Select(self._session.lake.store.uri, self._spec, fixed=self._session.fixed))

    def fields(self) -> pl.DataFrame:
        """Return the fields of this type: the metadata in the order of the responses, then the payload's.

        Returns:
            field, type (text, int, float, bool, instant, list of text, ...), unit, description, nulls and rows (how
            many of the resources that this client sees lack a value, out of how many; null where no lake is). They
            come from the files' statistics, or from one pass where old versions lie among the current ones.
        """
        from vxdata.sdk.fields import read_fields

        return read_fields(self._session, self._spec)

    def files(self) -> pl.DataFrame:
        """Return the data files of this type as this client sees it, for other engines (docs/sql.md).

        Returns:
            path (an address), rows, bytes, datasource_id (the partition, which is not a column of the files).
        """
        snapshot = self._session.view.snapshot(self._spec)
        paths = pl.Series("path", [snapshot.file_url(key) for key in snapshot.files["key"]], dtype=pl.String)
        return snapshot.files.select(
            paths, pl.col("num_records").alias("rows"), pl.col("size").alias("bytes"), PARTITION_COLUMN
        )

    def upsert(
        self,
        frame: pl.DataFrame | pl.LazyFrame,
        *,
        missing: Literal["keep", "delete"] = "keep",
        datasources: Sequence[str] | None = None,
        cascade: bool = False,
        valid_from: str | date | datetime | None = None,
        on_invalid: Literal["fail", "skip"] = "fail",
        batch_id: str | None = None,
        reason: str | None = None,
    ) -> "UpsertReport":
        """Make many resources be as a frame says, column-wise and in one commit. Running it again changes nothing.

        Args:
            frame: identifier, parent_identifier (for new resources), license, and payload fields. A column that it
                lacks is unchanged (null in a new resource), a null clears, derived columns are ignored. Equal
                duplicate rows count once, different ones are invalid.
            missing: "delete" closes the current resources of this type, in the datasources that the frame names, that
                it lacks; what others create meanwhile stays.
            datasources: with "delete": look in these instead; for a datasource of which nothing is left in the frame.
            cascade: whether such a resource may take its live descendants with it; refused otherwise.
            valid_from: the instant of the new versions (loading history); in the past, and later than all that is
                known of each resource.
            on_invalid: "fail" writes nothing if a row is invalid; "skip" writes the others. With missing="delete"
                it is refused beside a row that names no resource: what that row means might be closed.
            batch_id: a name for what is written (printable, 256 characters at most), under which it is written once:
                again, also after edits and also if the first run was killed after its commit, nothing is done.
            reason: why, for the audit log.

        Returns:
            The counts created, updated, unchanged and deleted, and the rejected rows with reasons.

        Raises:
            InvalidInputError: an unknown column, a column of a wrong type, or (with "fail") an invalid row. Or what is
                to be closed has live children, or may have some in a table whose type is not registered here.
            NotFoundError: `datasources` names one that there is not.
        """
        from vxdata.lake.scratch import Scratch
        from vxdata.lake.slices import to_slices
        from vxdata.lake.upsert import upsert

        stamp = self._session.stamp("upsert", reason, batch_id)
        check_frame("upsert", frame)
        options = upsert_options(missing, datasources, cascade, valid_from, on_invalid)
        if options.datasources and self._spec.payload.parent_types:
            refuse_unknown_datasources("upsert", self._session.lake, options.datasources, [self._spec])
        with Scratch() as scratch:
            wanted = {self._spec: to_slices(self._spec, frame, scratch)}
            return upsert(self._session.lake, wanted, options, stamp, scratch)[self._spec]


_CONVERSIONS = {"pandas": "pl.from_pandas(frame)", "pyarrow": "pl.from_arrow(frame)"}


def check_frame(verb: str, frame: object) -> None:
    """Refuse what is no frame of Polars.

    Raises:
        InvalidInputError: it is none; says how to make one of it.
    """
    if not isinstance(frame, (pl.DataFrame, pl.LazyFrame)):
        conversion = _CONVERSIONS.get(type(frame).__module__.partition(".")[0])
        hint = f" {conversion} makes one of it." if conversion else ""
        raise InvalidInputError(
            f"{verb}: a Polars DataFrame or LazyFrame is expected, not a {type(frame).__name__}.{hint}"
        )


def listed_datasources(verb: str, datasources: Any) -> tuple[str, ...]:
    """Return the identifiers of some datasources.

    Raises:
        InvalidInputError: one is none.
    """
    return tuple(map(_datasource, _listed(verb, datasources, "a list of datasources")))


def _datasource(identifier: Any) -> str:
    if type_of(check_identifier(identifier)) != "datasource":
        raise InvalidInputError(f"datasources: {identifier!r} is no datasource.")
    return str(identifier)


def _listed(verb: str, values: Any, expected: str) -> list[Any]:
    """Return some values as a list.

    Raises:
        InvalidInputError: they cannot be listed.
    """
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes)):
        raise InvalidInputError(f"{verb}: {expected} is expected, not {values!r}.")
    return list(values)


def check_missing(verb: str, missing: object, datasources: object, cascade: object) -> None:
    """Refuse what says nothing: how resources are to be closed, beside rows that close none.

    Raises:
        InvalidInputError: a word that is none of the allowed ones, a flag that is none, or one that needs "delete".
    """
    if missing not in ("keep", "delete"):
        raise InvalidInputError(f"missing={missing!r}: 'keep' or 'delete' is expected.")
    check_flags(verb, cascade=cascade)
    if missing == "keep" and (cascade or datasources is not None):
        given = "cascade=True (--cascade)" if cascade else f"datasources={datasources!r}"
        raise InvalidInputError(f"{verb}: {given} does nothing without missing='delete'.")


def refuse_unknown_datasources(verb: str, lake: "Lake", datasources: Iterable[str], specs: Iterable[TableSpec]) -> None:
    """Refuse datasources of which there is no trace: a misspelt one would quietly name nothing.

    Only the logs are looked at, and as a rule that of the datasources alone.

    Raises:
        NotFoundError: there are such; names the nearest.
    """
    known: set[str] = set()
    for spec in dict.fromkeys([table_spec(registry().of_type("datasource")), *specs]):
        unknown = [name for name in datasources if name not in known]
        if not unknown:
            return
        known |= set(lake.snapshot(spec).files[PARTITION_COLUMN])
    for name in datasources:
        if name not in known:
            raise NotFoundError(f"{verb}: there is no {name!r}.{did_you_mean(name, sorted(known))}")


def upsert_options(
    missing: Literal["keep", "delete"],
    datasources: Sequence[str] | None,
    cascade: bool,
    valid_from: str | date | datetime | None,
    on_invalid: Literal["fail", "skip"],
) -> "UpsertOptions":
    """Return the options of an upsert, checked.

    Raises:
        InvalidInputError: a word that is none of the allowed ones, a flag that is none, or no instant.
    """
    from vxdata.lake.lacking import UpsertOptions
    from vxdata.sdk.query import read_instant

    if on_invalid not in ("fail", "skip"):
        raise InvalidInputError(f"on_invalid={on_invalid!r}: 'fail' or 'skip' is expected.")
    check_missing("upsert", missing, datasources, cascade)
    named = None if datasources is None else listed_datasources("upsert", datasources)
    instant = None if valid_from is None else read_instant(valid_from)
    return UpsertOptions(missing, named, cascade, instant, on_invalid)
