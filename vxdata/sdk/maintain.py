"""Maintenance by a policy: the one thing that a scheduler runs. Safe to run twice at once, and beside all writers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vxdata.errors import InvalidInputError, did_you_mean
from vxdata.lake.chores import last_verified, note_verified
from vxdata.lake.trim import LEAST_DAYS, MOST_DAYS
from vxdata.lake.vacuum import VacuumReport, vacuum
from vxdata.lake.verify import VerifyReport, verify
from vxdata.sdk.session import Session
from vxdata.sdk.upkeep import BY_SCHEDULE, CompactionReport, Folded, FoldPolicy, compact

Outcome = Literal["done", "nothing to do", "a person is needed"]
Event = Callable[[str, Mapping[str, Any]], None]
"""Told what happens: its name, such as ``compact.round``, and what there is to say of it."""


class MaintainPolicy(BaseModel):
    """What is worth doing: the section ``[maintain]`` of a `vxdata.toml`.

    Durations are numbers of days.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    tail_files: int = Field(
        default=BY_SCHEDULE.tail_files, ge=1, description="A partition is folded if its tail has so many files, or"
    )
    tail_share: float = Field(
        default=BY_SCHEDULE.tail_share, ge=0, le=1, description="if its tail has this share of the partition's rows."
    )
    vacuum: bool = Field(default=True, description="Whether files that no state needs are deleted.")
    retention_days: float = Field(
        default=7.0, ge=1, le=MOST_DAYS, description="How long superseded states stay readable."
    )
    keep_log_days: int = Field(
        default=LEAST_DAYS, ge=LEAST_DAYS, le=MOST_DAYS, description="How long log entries stay."
    )
    verify_days: float = Field(
        default=7.0,
        ge=0,
        le=MOST_DAYS,
        description="The whole lake is checked if that was not done for so long; 0: each time.",
    )

    @property
    def folds(self) -> FoldPolicy:
        """The same for a compaction."""
        return FoldPolicy(tail_files=self.tail_files, tail_share=self.tail_share)


def to_policy(values: Mapping[str, Any], where: str) -> MaintainPolicy:
    """Return a policy from the values of a settings file.

    Args:
        values: the keys of the section.
        where: the file, for messages.

    Raises:
        InvalidInputError: an unknown key, or a value that is out of its range.
    """
    for name in values:
        if name not in MaintainPolicy.model_fields:
            raise InvalidInputError(
                f"{where}: [maintain] unknown key {name!r}.{did_you_mean(name, MaintainPolicy.model_fields)}"
            )
    try:
        return MaintainPolicy.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInputError(
            f"{where}: [maintain] {first['loc'][0]} = {first['input']!r}: {first['msg'].lower()}."
        ) from None


@dataclass(frozen=True)
class MaintainReport:
    """What a maintenance did.

    Attributes:
        outcome: "done", "nothing to do", or "a person is needed": the check found something wrong.
        compaction: what was folded, and what became of the logs.
        vacuum: what was deleted; None if the policy says no.
        verify: what the check found; None if it was not due.
    """

    outcome: Outcome
    compaction: CompactionReport
    vacuum: VacuumReport | None
    verify: VerifyReport | None


def maintain(
    session: Session, policy: MaintainPolicy | None = None, *, reason: str | None = None, event: Event = lambda *_: None
) -> MaintainReport:
    """Do what is due: see `Client.maintain`."""
    session.stamp("maintain", reason)  # refuses a read-only client before anything is looked at
    policy, lake = policy or MaintainPolicy(), session.lake

    def folded(round_: Folded) -> None:
        event("compact.round", vars(round_))

    done = compact(session, policy=policy.folds, keep_log_days=policy.keep_log_days, reason=reason, progress=folded)
    event("compact", {"rounds": done.rounds.height, "checkpoints": done.checkpoints, "trimmed": done.trimmed})
    freed = None
    if policy.vacuum:
        freed = vacuum(lake, timedelta(days=policy.retention_days), False)
        event("vacuum", {"files": freed.count, "bytes": freed.bytes})
    checked = None
    if _is_due(last_verified(lake.store), lake.patience.now(), timedelta(days=policy.verify_days)):
        checked = verify(lake.store, lake.patience, lambda _: None)
        event("verify", {"ok": checked.ok, "findings": checked.findings.height, "checked": dict(checked.checked)})
        if checked.ok:
            note_verified(lake.store, lake.patience.now())
    return MaintainReport(_outcome(done, freed, checked), done, freed, checked)


def _is_due(last: datetime | None, now: datetime, every: timedelta) -> bool:
    """A check that is dated in the future was dated by a wrong clock: it counts as none."""
    return last is None or last > now or now - last >= every


def _outcome(done: CompactionReport, freed: VacuumReport | None, checked: VerifyReport | None) -> Outcome:
    if checked is not None and not checked.ok:
        return "a person is needed"
    is_done = done.is_changed or (freed is not None and freed.count > 0) or checked is not None
    return "done" if is_done else "nothing to do"
