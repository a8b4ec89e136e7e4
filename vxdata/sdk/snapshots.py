"""`client.snapshots`: states of the lake that stay readable until they are dropped."""

import polars as pl

from vxdata.catalog.table import all_specs
from vxdata.errors import InvalidInputError, name_some
from vxdata.lake import kept
from vxdata.lake.kept import KeptSnapshot
from vxdata.lake.lake import FixedView
from vxdata.lake.token import LakeState
from vxdata.lake.unregistered import REGISTER_THEM
from vxdata.schemas.columns import INSTANT
from vxdata.sdk.session import Session

_COLUMNS = {
    "name": pl.String(),
    "kept_at": INSTANT,
    "author": pl.String(),
    "reason": pl.String(),
    "token": pl.String(),
}


class Snapshots:
    """The kept snapshots of a lake.

    Compaction, vacuum and the trimming of the log leave them whole: `Client(uri, snapshot=token)` opens them.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def keep(self, name: str, *, token: str | None = None, reason: str | None = None) -> KeptSnapshot:
        """Keep a state of the lake.

        Args:
            name: a new name, such as "paper 2026".
            token: the token of the state; default: all tables as they are now.
            reason: why, for whoever wonders later whether it can be dropped.

        Returns:
            What was kept, with the token that opens it.

        Raises:
            AlreadyExistsError: the name is taken.
            NotFoundError: the state, or some of its files, are gone already; nothing is kept.
            ConflictError: a vacuum or an erasure is deleting files of the state right now; nothing is kept.
            InvalidInputError: the name or the token is none, the state has a table whose type is not registered here,
                or this client is read-only.
        """
        stamp = self._session.stamp("snapshots.keep", reason)
        kept.manifest_key(name)  # refuses a bad name before anything is read
        lake = self._session.lake
        lake.prepare_write(needs_lake=True)
        lake.begin_write()
        state = lake.state() if token is None else LakeState.from_text(token)
        _refuse_unknown_tables(state)
        view = FixedView(lake, state)
        snapshots = [view.snapshot(spec) for spec in all_specs()]
        record = KeptSnapshot(name, state.to_text(), stamp.author, reason, lake.patience.now(), dict(state.versions))
        kept.keep(lake.store, record, snapshots)
        return record

    def list(self) -> pl.DataFrame:
        """Return what is kept, oldest first: name, kept_at (UTC), author, reason, token."""
        _ = self._session.lake.lake_id  # raises where no lake is
        rows = [(r.name, r.kept_at, r.author, r.reason, r.token) for r in kept.read_kept(self._session.lake.store)]
        return pl.DataFrame(rows, schema=_COLUMNS, orient="row")

    def drop(self, name: str) -> None:
        """Let go of a kept snapshot; the files that only it needs are for the next vacuum.

        Raises:
            NotFoundError: nothing is kept under this name.
        """
        self._session.stamp("snapshots.drop", None)
        self._session.lake.prepare_write(needs_lake=True)
        kept.drop(self._session.lake.store, name)


def _refuse_unknown_tables(state: LakeState) -> None:
    known = {spec.namespace for spec in all_specs()}
    unknown = [name for name in (*dict(state.versions), *state.unregistered) if name not in known]
    if unknown:
        raise InvalidInputError(
            f"the state has tables whose payload type is not registered here, {name_some(unknown)}: {REGISTER_THEM}."
        )
    if state.unregistered:
        raise InvalidInputError(
            f"the token does not hold {name_some(state.unregistered)}: it was made where the payload type was not "
            "registered. Keep a newer state: client.snapshots.keep(name)."
        )
