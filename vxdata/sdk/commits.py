"""`client.commits`: who changed what, when and why; and undoing one operation."""

from collections.abc import Iterable

import polars as pl

from vxdata.catalog.table import TableSpec, all_specs, table_spec
from vxdata.errors import InvalidInputError, NotFoundError
from vxdata.lake import revert as reverts
from vxdata.lake.audit import COMMIT_COLUMNS, read_commits
from vxdata.lake.revert import RevertReport
from vxdata.schemas.registry import registry
from vxdata.sdk.session import Session, check_flags


class Commits:
    """The commits of a lake: the audit log. It outlives the trimming of the Delta logs."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def list(self, namespace: str | None = None, *, limit: int | None = None) -> pl.DataFrame:
        """Return the commits, newest first: an operation over several types has one row, with one id, for each.

        Commits of other Delta writers are there too, without an id and under Delta's name of the operation.

        Args:
            namespace: only those of one type, such as ``volumes``.
            limit: only so many.

        Returns:
            committed_at (UTC, by the writer's clock), commit_id, operation, author, reason, namespace, version (of the
            Delta table), created, updated, deleted, batch_id, vxdata_version.

        Raises:
            InvalidInputError: an unknown namespace, or a limit that is no count.
            NotFoundError: no lake is here.
        """
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
            raise InvalidInputError(f"limit={limit!r}: a count of 0 or more is expected.")
        specs = all_specs() if namespace is None else [table_spec(registry().of_namespace(namespace))]
        return self._read(specs, limit)

    def get(self, commit_id: str) -> pl.DataFrame:
        """Return the commits of one operation, one row for each type that it changed; columns as in `list`.

        Raises:
            NotFoundError: no commit has this id.
        """
        found = self._read(all_specs(), None).filter(pl.col("commit_id") == _text(commit_id))
        if found.is_empty():
            raise NotFoundError(f"no commit has the id {commit_id!r}; client.commits.list() shows them.")
        return found

    def revert(self, commit_id: str, *, reason: str | None = None, dry_run: bool = False) -> RevertReport:
        """Undo one operation in all its tables, as new versions: history stays, and the revert can be reverted.

        What it created is deleted, what it updated gets its license and payload of before, what it deleted comes back.

        Args:
            commit_id: of the operation, as `list` and the reports give it.
            reason: why, for the audit log.
            dry_run: whether to write nothing, and only say what would be done and what stands in the way.

        Raises:
            NotFoundError: no commit has this id.
            InvalidInputError: it changed nothing, or resources were changed since, have live children that it did not
                make, or have lost their parents; names them. Or there is a table whose type is not registered here.
            ConflictError: a parent was deleted, or a child came, at the same time.
        """
        check_flags("revert", dry_run=dry_run)
        stamp = self._session.stamp("revert", reason)
        return reverts.revert(self._session.lake, _text(commit_id), dry_run, stamp)

    def _read(self, specs: Iterable[TableSpec], limit: int | None) -> pl.DataFrame:
        return read_commits(self._session.lake, self._session.view, specs, limit).select(*COMMIT_COLUMNS)


def _text(commit_id: str) -> str:
    if not isinstance(commit_id, str) or not commit_id:
        raise InvalidInputError(
            f"commit_id={commit_id!r}: the id of a commit is expected; client.commits.list() has them."
        )
    return commit_id
