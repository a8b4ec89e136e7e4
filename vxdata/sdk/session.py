"""What a client's namespaces share: the lake, the view of it, and who writes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from vxdata.errors import InvalidInputError
from vxdata.lake.lake import FixedView, Lake, View

if TYPE_CHECKING:
    from vxdata.lake.intent import Stamp


def check_flags(verb: str, **flags: object) -> None:
    """Refuse flags that are neither True nor False: None or a text would decide by being truthy, also what is deleted.

    Raises:
        InvalidInputError: one is; names it.
    """
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise InvalidInputError(f"{verb}: {name}={value!r}: True or False is expected.")


@dataclass(frozen=True)
class Session:
    """The state of a client, fixed for its life.

    Attributes:
        lake: the lake.
        view: which snapshots reads see.
        author: who writes, for the audit log.
        instant: reads see the lake as of this instant; None for the newest state.
        read_only: why writes are refused; None if they are not.
        storage_options: how the client reaches S3, for what else it reads there.
        profile: the profile that its settings are of, where it was named; for scripts that ask the same.
    """

    lake: Lake
    view: View
    author: str
    instant: datetime | None = None
    read_only: str | None = None
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)
    profile: str | None = None

    @property
    def snapshot_token(self) -> str | None:
        """The token of the snapshot that this client sees; None for the newest state."""
        return self.view.state.to_text() if isinstance(self.view, FixedView) else None

    @property
    def fixed(self) -> str | None:
        """The past or the snapshot that this client sees, in words; None for the newest state."""
        past = "" if self.instant is None else f" as of {self.instant.isoformat()}"
        snapshot = "" if self.snapshot_token is None else f" of the snapshot {self.snapshot_token}"
        return f"{snapshot}{past}".strip() or None

    def stamp(self, operation: str, reason: str | None, batch_id: str | None = None) -> "Stamp":
        """Return the stamp of a write.

        Raises:
            InvalidInputError: the client is read-only, or the batch id is none.
        """
        from vxdata.lake.batch import check_batch_id
        from vxdata.lake.intent import Stamp

        if reason is not None and not isinstance(reason, str):
            raise InvalidInputError(f"reason={reason!r}: a text is expected, not {type(reason).__name__}.")
        if self.read_only:
            raise InvalidInputError(f"{operation}: {self.read_only} is read-only; use the client that it came from.")
        return Stamp(operation, self.author, reason, batch_id=None if batch_id is None else check_batch_id(batch_id))
