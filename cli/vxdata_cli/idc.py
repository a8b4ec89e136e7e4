"""Loading a release of the IDC index into a lake: what it may close, and from when its versions are valid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from vxdata.errors import InvalidInputError, NotFoundError, name_some
from vxdata.lake.upsert import UpsertReport
from vxdata.sdk import Client, F
from vxdata.sdk.ingest import ingest, is_ingested
from vxdata.sources.idc import ORIGIN, IdcRelease, read_release
from vxdata_cli.out import Begin


@dataclass(frozen=True)
class Loaded:
    """What loading a release did.

    Attributes:
        lake: the lake's address.
        release: the release.
        valid_from: from when the new versions are valid, UTC; None for the moment of loading.
        reports: what was done in each namespace, root first.
    """

    lake: str
    release: IdcRelease
    valid_from: datetime | None
    reports: dict[str, UpsertReport]

    @property
    def is_changed(self) -> bool:
        """Whether anything was written."""
        return any(r.created or r.updated or r.deleted for r in self.reports.values())

    def to_document(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {
            "lake": self.lake,
            "release": {
                "version": self.release.version,
                "released": self.release.released and self.release.released.isoformat(),
                "index": str(self.release.index),
            },
            "valid_from": self.valid_from and self.valid_from.isoformat(),
            "changed": self.is_changed,
            "already_committed": all(r.already_committed for r in self.reports.values()),
            "namespaces": {
                name: {"created": r.created, "updated": r.updated, "unchanged": r.unchanged, "deleted": r.deleted}
                for name, r in self.reports.items()
            },
        }


def load_release(
    client: Client,
    release: IdcRelease,
    *,
    collections: Sequence[str] | None = None,
    valid_from: datetime | None = None,
    batch_id: str | None = None,
    reason: str | None = None,
    begin: Begin = lambda text: None,
) -> Loaded:
    """Make the IDC part of a lake be as a release says; running it again writes nothing.

    What the release lacks is closed: in the named collections, else in all datasources that came from IDC. Datasources
    of other origin are never touched.

    Args:
        client: the lake's client.
        release: the release.
        collections: the collections to load, by id; None for all of them.
        valid_from: from when the new versions are valid, UTC; None for the moment of loading.
        batch_id: a name under which this is loaded once; again, nothing is done, also if the lake was edited since.
        reason: why, for the audit log; by default the release's name.
        begin: told each step as it starts.

    Raises:
        InvalidInputError: a collection is unknown, a datasource of another origin has the name of a collection, the
            lake holds later versions, or data of another source hangs on what was withdrawn.
    """
    begin("look into the lake")
    origins = read_origins(client)
    begin(f"read the index of {release_name(release)}")
    frames = read_release(release, collections)
    released = frames["datasources"]["identifier"].to_list()
    refuse_foreign(released, origins)
    withdrawn = [] if collections else [i for i, origin in origins.items() if origin == ORIGIN and i not in released]
    scope = [*released, *withdrawn]
    closes = any(identifier in origins for identifier in scope)
    steps = iter(_steps(frames, closes))
    begin(next(steps))
    try:
        is_repeat = batch_id is not None and bool(origins) and is_ingested(client, batch_id, frames)
        if closes and valid_from is not None and not is_repeat:
            refuse_later(client, frames, scope, valid_from)
        reports = ingest(
            client,
            frames,
            missing="delete" if closes else "keep",
            datasources=scope if closes else None,
            valid_from=valid_from,
            batch_id=batch_id,
            reason=reason or release_name(release),
            progress=lambda *_: begin(step) if (step := next(steps, None)) else None,
        )
    except InvalidInputError as error:
        raise _explained(error, release, valid_from) from error
    return Loaded(client.uri, release, valid_from, reports)


def _steps(frames: Mapping[str, pl.DataFrame], closes: bool) -> list[str]:
    loads = [f"load {frame.height:,} {name.replace('_', ' ')}" for name, frame in frames.items()]
    return [*loads, "close what was withdrawn"] if closes else loads


def read_origins(client: Client) -> dict[str, str | None]:
    """Return the origin of each current datasource; nothing where no lake is yet."""
    try:
        rows = client.datasources.query().select("identifier", "origin").collect()
    except NotFoundError:
        return {}
    return dict(rows.iter_rows())


def refuse_foreign(released: Sequence[str], origins: dict[str, str | None]) -> None:
    """Refuse to overwrite a datasource that only shares its name with a collection of IDC.

    Raises:
        InvalidInputError: the lake has such datasources; names them.
    """
    if foreign := sorted(identifier for identifier in released if origins.get(identifier, ORIGIN) != ORIGIN):
        raise InvalidInputError(
            f"{name_some(foreign, 5)}: in the lake already, and not from IDC (its origin is not {ORIGIN!r}). Load the "
            "release into another lake (--uri), or only other collections (--collection)."
        )


def release_name(release: IdcRelease) -> str:
    """Return what people call a release, such as ``IDC 25``."""
    return f"IDC {release.version}" if release.version else "IDC"


def refuse_later(client: Client, frames: Mapping[str, pl.DataFrame], scope: Sequence[str], instant: datetime) -> None:
    """Refuse, before anything is written, to close what came into the lake after an instant as of that instant.

    Raises:
        InvalidInputError: the lake has such resources; names some.
    """
    for name, frame in frames.items():
        query = getattr(client, name).query().filter(F.datasource_id.is_in(scope), F.valid_from > instant)
        later = query.select("identifier").collect().join(frame, on="identifier", how="anti")
        if later.height:
            raise InvalidInputError(f"{name_some(later['identifier'].sort(), 3)}: {_LATE}.")


_LATE, _HAS_CHILDREN = "valid_from is not later", "live children are left"


def _explained(error: InvalidInputError, release: IdcRelease, valid_from: datetime | None) -> InvalidInputError:
    """Say what to do about what stands in the release's way."""
    name, words = release_name(release), str(error)
    if _HAS_CHILDREN in words:
        found = words.partition(" Delete them")[0]
        return InvalidInputError(
            f"{name} lacks what other data of the lake hangs on. {found} Delete these, then run the same command "
            "again. Nothing was written."
        )
    if valid_from is None or _LATE not in words:
        return error
    return InvalidInputError(
        f"{name} cannot be loaded as of {valid_from.isoformat()}: some of what it changes has later versions in the "
        "lake. If they come from a newer release, there is nothing to do: client.as_of(...) shows the past, and a "
        "history is loaded oldest release first. If the lake was edited since, '--valid-from now' makes it as this "
        "release says from now on. (--debug shows the rows.)"
    )
