"""`Client`: a lake at an address, its namespaces, and its past.

client = Client("s3://bucket/lake")
client.patients.retrieve("patient/BB00017")
"""

import getpass
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from vxdata.errors import InvalidInputError, did_you_mean

if TYPE_CHECKING:
    from vxdata.lake.erase import Erasure
    from vxdata.lake.vacuum import VacuumReport
    from vxdata.lake.verify import VerifyReport
    from vxdata.schemas import response as r
    from vxdata.schemas.payload import Payload
    from vxdata.schemas.registry import PayloadRegistry
    from vxdata.schemas.response import ResourceResponse
    from vxdata.sdk.commits import Commits
    from vxdata.sdk.info import LakeInfo
    from vxdata.sdk.maintain import Event, MaintainPolicy, MaintainReport
    from vxdata.sdk.namespace import Namespace, Resources
    from vxdata.sdk.session import Session
    from vxdata.sdk.snapshots import Snapshots
    from vxdata.sdk.upkeep import CompactionReport, FoldPolicy, Progress

PayloadT = TypeVar("PayloadT", bound="Payload")


class Client:
    """A client of one lake. It is cheap to make: nothing is read before the first verb.

    Args:
        uri: a folder or ``s3://bucket/prefix``; default: the settings (the variable VXDATA_URI, else ``vxdata.toml`` in
            this folder or a parent, else the user's), else a lake in the user's data folder.
        storage_options: access_key_id, secret_access_key, session_token, region, endpoint_url, profile; default: the
            settings, and what they leave open as boto3 finds it: the standard AWS environment, profiles and roles.
        author: who writes, for the audit log; default: the settings (the variable VXDATA_AUTHOR, else
            ``vxdata.toml``), else the user's name.
        profile: the profile of ``vxdata.toml`` whose settings hold; they come before the environment.
        snapshot: the token of a snapshot; the client is then read-only and sees exactly that state.

    Raises:
        InvalidInputError: address, author or token is none, the token is of another lake, or a settings file
            is wrong.
        NotFoundError: with `snapshot`: no lake is there; with `profile`: no file has it.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str] | None = None,
        *,
        storage_options: Mapping[str, str] | None = None,
        author: str | None = None,
        profile: str | None = None,
        snapshot: str | None = None,
    ) -> None:
        from dataclasses import replace

        from vxdata.lake.lake import FixedView, Lake
        from vxdata.lake.store import open_store
        from vxdata.lake.token import LakeState
        from vxdata.sdk.session import Session
        from vxdata.sdk.settings import find_settings

        if author is not None and (not isinstance(author, str) or not author.strip()):
            raise InvalidInputError(f"author={author!r}: the name of who writes is expected, as a text.")
        settings = find_settings(profile=profile)
        address = uri if uri is not None else settings["uri"] or default_uri()
        options = storage_options if storage_options is not None else settings.storage_options
        lake = Lake(open_store(address, options))
        author = author or settings["author"] or _user_name()
        self._session = Session(lake, lake, author, storage_options=options, profile=profile)
        if snapshot is not None:
            state = LakeState.from_text(snapshot)
            view = FixedView(lake, state)
            self._session = replace(self._session, view=view, instant=state.instant, read_only="a client of a snapshot")

    @classmethod
    def _of(cls, session: "Session") -> "Client":
        client = cls.__new__(cls)
        client._session = session
        return client

    def __repr__(self) -> str:
        return f"Client({self.uri!r})"

    @property
    def uri(self) -> str:
        """The lake's address."""
        return self._session.lake.store.uri

    @property
    def author(self) -> str:
        """Who writes, for the audit log."""
        return self._session.author

    @property
    def token(self) -> str:
        """The token of a snapshot client: `Client(uri, snapshot=token)` opens the same state again."""
        from dataclasses import replace

        from vxdata.lake.lake import FixedView

        view = self._session.view
        if not isinstance(view, FixedView):
            raise InvalidInputError("only a client of a snapshot has a token; client.snapshot() gives one.")
        return replace(view.state, instant=self._session.instant).to_text()

    # -- time

    def as_of(self, instant: str | date | datetime) -> "Client":
        """Return a read-only client that sees the lake as of an instant (valid time); naive means UTC."""
        from dataclasses import replace

        from vxdata.sdk.query import read_instant

        at, own = read_instant(instant), self._session.instant
        if own is not None and at > own:
            raise InvalidInputError(f"as_of({instant!r}): this client sees the lake as of {own.isoformat()} only.")
        return Client._of(replace(self._session, instant=at, read_only="a client of the past"))

    def snapshot(self) -> "Client":
        """Return a read-only client on the exact state of all tables now; its `.token` opens it again.

        The snapshot of a snapshot is the same state; that of a client of the past stays in the past.
        """
        from dataclasses import replace

        from vxdata.lake.lake import FixedView

        lake, view = self._session.lake, self._session.view
        fixed = view if isinstance(view, FixedView) else FixedView(lake, lake.state())
        return Client._of(replace(self._session, view=fixed, read_only="a client of a snapshot"))

    @cached_property
    def snapshots(self) -> "Snapshots":
        """The kept snapshots: states of the lake that stay readable until they are dropped."""
        from vxdata.sdk.snapshots import Snapshots

        return Snapshots(self._session)

    # -- looking

    def info(self) -> "LakeInfo":
        """Return the state of the lake: how much each table holds, how it lies in files, and what wants upkeep.

        Raises:
            NotFoundError: no lake is here.
        """
        from vxdata.sdk.info import read_info

        return read_info(self._session)

    # -- commits

    @cached_property
    def commits(self) -> "Commits":
        """The commits: who changed what, when and why; and undoing one."""
        from vxdata.sdk.commits import Commits

        return Commits(self._session)

    def resolve(self, token: str) -> bool:
        """Find out for good whether a commit of unknown outcome landed.

        Args:
            token: from a `CommitUnknownError`.

        Returns:
            True if it landed; False if it did not and never will, so that it is safe to write again.
        """
        from vxdata.catalog.table import table_spec
        from vxdata.lake.commit import resolve
        from vxdata.lake.token import UnknownCommit

        unknown = UnknownCommit.from_text(token)
        stamp = self._session.stamp("resolve", None)
        spec = table_spec(_registry().of_namespace(unknown.namespace))
        return resolve(self._session.lake.table(spec), unknown, stamp) is not None

    # -- upkeep

    def compact(
        self,
        *namespaces: str,
        datasources: Sequence[str] | None = None,
        policy: "FoldPolicy | None" = None,
        reason: str | None = None,
        progress: "Progress | None" = None,
    ) -> "CompactionReport":
        """Fold what was appended into sorted files of current and of closed versions; no answer changes.

        It runs beside writers and other compactions, makes checkpoints, archives the commits' metadata, and trims the
        log of what is older than 30 days. Where there is nothing to do it writes nothing.

        Args:
            namespaces: the tables; all if none is named.
            datasources: only these partitions, by their identifiers.
            policy: what is worth folding and how large files shall be; default: every tail.
            reason: why, for the audit log.
            progress: told after each round of a partition.

        Raises:
            InvalidInputError: an unknown namespace, or the client is read-only.
            NotFoundError: no lake is here, or no such datasource.
            StorageError: a file is damaged or missing; what was folded before stays.

        Source: design of record, section 5 (compaction folds).
        """
        from vxdata.sdk.upkeep import compact

        told = progress or (lambda _: None)
        return compact(self._session, namespaces, datasources=datasources, policy=policy, reason=reason, progress=told)

    def vacuum(
        self,
        *,
        retention: timedelta | None = None,
        dry_run: bool = True,
        progress: Callable[[str], None] | None = None,
    ) -> "VacuumReport":
        """Delete the files that neither the newest state needs, nor a younger one, nor a kept snapshot.

        Args:
            retention: how long states that were superseded stay readable: at least 24 hours; default: seven days.
            dry_run: only say what would be deleted.
            progress: told what is being done.

        Returns:
            What was deleted, or would be: `.files` (a frame), `.count`, `.bytes`.

        Raises:
            InvalidInputError: the retention is too short, or this client is read-only.
            NotFoundError: no lake is here.
        """
        from vxdata.lake.vacuum import vacuum
        from vxdata.sdk.session import check_flags

        check_flags("vacuum", dry_run=dry_run)
        self._session.stamp("vacuum", None)
        return vacuum(self._session.lake, retention, dry_run, progress or (lambda text: None))

    def verify(self, *, progress: Callable[[str], None] | None = None) -> "VerifyReport":
        """Check the whole lake as it is now: log, files, checksums, statistics, versions, lineage, kept snapshots.

        Args:
            progress: told what is being done.

        Returns:
            `.ok`, and `.findings`: a frame with severity, kind, namespace, subject, detail and remedy.

        Raises:
            NotFoundError: no lake is here.
        """
        from vxdata.lake.verify import verify

        lake = self._session.lake
        return verify(lake.store, lake.patience, progress or (lambda text: None))

    def maintain(
        self,
        policy: "MaintainPolicy | None" = None,
        *,
        reason: str | None = None,
        event: "Event | None" = None,
    ) -> "MaintainReport":
        """Do what is due: compaction, checkpoints, trimming, vacuum and a check of the whole lake, by a policy.

        It is what a scheduler runs; it is safe to run twice at once. See docs/jobs.md.

        Args:
            policy: what is worth doing; default: `MaintainPolicy()`.
            reason: why, for the audit log.
            event: told what happens, as a name and a mapping.

        Raises:
            StorageError: a file is damaged, or the store failed (then it is retryable).
        """
        from vxdata.sdk.maintain import maintain

        return maintain(self._session, policy, reason=reason, event=event or (lambda *_: None))

    def erase(
        self,
        identifier: str,
        *,
        reason: str,
        dry_run: bool = True,
        progress: Callable[[str], None] | None = None,
    ) -> "Erasure":
        """Remove every version of a resource and of all its descendants from the lake, its past included.

        A consent was withdrawn. By default only the plan is returned. It takes a minute or two, because writers that
        are under way are waited for; a run that was killed is gone on with by running it again. A record without
        personal data stays.

        Args:
            identifier: the resource, live or not.
            reason: why; it is kept, so it must not name the resource.
            dry_run: only say what would be removed.
            progress: told what is being done.

        Raises:
            NotFoundError: nothing in the lake tells of the resource.
            InvalidInputError: no reason, or one that names the resource; or there is a table whose type is not
                registered here.
            StorageError: it stopped on the way; run it again.
        """
        from vxdata.lake.erase import erase, plan_erasure
        from vxdata.schemas.identifiers import check_identifier
        from vxdata.sdk.session import check_flags

        check_flags("erase", dry_run=dry_run)
        check_identifier(identifier)
        if not isinstance(reason, str) or not reason.strip():
            raise InvalidInputError("erase: a reason is kept with the record; write, for example, 'consent withdrawn'.")
        stamp, lake = self._session.stamp("erase", reason), self._session.lake
        told = progress or (lambda _: None)
        return plan_erasure(lake, identifier) if dry_run else erase(lake, identifier, stamp, told)

    # -- namespaces

    @cached_property
    def resources(self) -> "Resources[ResourceResponse[Any]]":
        """The verbs on resources of any type."""
        from vxdata.sdk.namespace import Resources

        return Resources(self._session)

    def namespace(self, payload: "type[PayloadT]") -> "Namespace[ResourceResponse[PayloadT]]":
        """Return the namespace of a payload class, such as a team's own.

        Raises:
            InvalidInputError: it is no payload class, or the class is not registered.
        """
        from vxdata.schemas.payload import Payload
        from vxdata.sdk.namespace import Namespace

        if not (isinstance(payload, type) and issubclass(payload, Payload)):
            named = f" client.{payload} is that namespace." if payload in _registry().namespaces() else ""
            raise InvalidInputError(f"namespace({payload!r}): a payload class is expected.{named}")
        if payload.payload_type not in _registry() or _registry().of_type(payload.payload_type) is not payload:
            raise InvalidInputError(
                f"{payload.__name__} is not registered; call vxdata.schemas.register({payload.__name__})."
            )
        return Namespace(self._session, payload)

    def __getattr__(self, name: str) -> "Namespace[ResourceResponse[Any]]":
        """Return the namespace of a type that a team added."""
        namespaces = _registry().namespaces()
        if name.startswith("_") or name not in namespaces:
            raise AttributeError(f"a client has no {name!r}.{did_you_mean(name, namespaces)}")
        return self.namespace(_registry().of_namespace(name))

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_registry().namespaces()})

    def _typed(self, namespace: str) -> Any:
        return self.namespace(_registry().of_namespace(namespace))

    @cached_property
    def datasources(self) -> "Namespace[r.DatasourceResponse]":
        """Trials, clinics and collections."""
        return self._typed("datasources")  # type: ignore[no-any-return]

    @cached_property
    def patients(self) -> "Namespace[r.PatientResponse]":
        """Patients."""
        return self._typed("patients")  # type: ignore[no-any-return]

    @cached_property
    def imaging_studies(self) -> "Namespace[r.ImagingStudyResponse]":
        """Imaging studies."""
        return self._typed("imaging_studies")  # type: ignore[no-any-return]

    @cached_property
    def volumes(self) -> "Namespace[r.VolumeResponse]":
        """Image series and what was derived from them."""
        return self._typed("volumes")  # type: ignore[no-any-return]

    @cached_property
    def annotation_sessions(self) -> "Namespace[r.AnnotationSessionResponse]":
        """Sittings of readers."""
        return self._typed("annotation_sessions")  # type: ignore[no-any-return]

    @cached_property
    def pirads_assessments(self) -> "Namespace[r.PiradsAssessmentResponse]":
        """PI-RADS assessments."""
        return self._typed("pirads_assessments")  # type: ignore[no-any-return]

    @cached_property
    def pathology_specimens(self) -> "Namespace[r.PathologySpecimenResponse]":
        """Pathology specimens."""
        return self._typed("pathology_specimens")  # type: ignore[no-any-return]

    @cached_property
    def pathology_assessments(self) -> "Namespace[r.PathologyAssessmentResponse]":
        """Pathology findings."""
        return self._typed("pathology_assessments")  # type: ignore[no-any-return]

    @cached_property
    def psa_measurements(self) -> "Namespace[r.PsaMeasurementResponse]":
        """PSA measurements."""
        return self._typed("psa_measurements")  # type: ignore[no-any-return]

    @cached_property
    def diagnostic_reports(self) -> "Namespace[r.DiagnosticReportResponse]":
        """Written reports."""
        return self._typed("diagnostic_reports")  # type: ignore[no-any-return]


def default_uri() -> str:
    """Return the address of the embedded lake: a folder in the user's data folder."""
    from platformdirs import user_data_path

    return str(user_data_path("vxdata", appauthor=False) / "lake")


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def _registry() -> "PayloadRegistry":
    """Return the registry; the models are built when it is first needed, so that the import of the SDK stays light."""
    from vxdata.schemas.registry import registry

    return registry()
