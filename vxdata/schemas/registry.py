"""The registry of payload types: the ten of VxData, and those that a team adds.

A team's own types come in by `register`, or by the Python entry-point group ``vxdata.payloads``, whose entries name
payload classes. Entry points are read once, when a type is first looked up.
"""

from collections.abc import Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from vxdata.errors import InvalidInputError, did_you_mean
from vxdata.schemas import payload as standard
from vxdata.schemas.columns import allows_null, model_columns
from vxdata.schemas.payload import Payload

ENTRY_POINT_GROUP = "vxdata.payloads"
PayloadClass = TypeVar("PayloadClass", bound=type[Payload])

STANDARD_COLUMNS = (
    "identifier",
    "parent_identifier",
    "datasource_id",
    "patient_id",
    "study_id",
    "valid_from",
    "valid_to",
    "closes",
    "is_deleted",
    "created_at",
    "commit_id",
    "closed_by",
    "license",
    "ancestors",
)
"""The columns that every table starts with, in order (design, section 5)."""

RESERVED_NAMESPACES = frozenset(
    {"resources", "storage", "snapshots", "commits", "snapshot", "as_of", "resolve", "compact", "vacuum", "verify"}
    | {"erase", "maintain", "info", "namespace", "namespaces", "author", "uri", "close", "token"}
)
"""Words that the client itself uses, so that no type may take them as its namespace."""


class PayloadRegistry:
    """The payload types by their type word and by their namespace."""

    def __init__(self, classes: tuple[type[Payload], ...] = ()) -> None:
        self._by_type: dict[str, type[Payload]] = {}
        for cls in classes:
            self.add(cls)

    def add(self, cls: type[Payload]) -> None:
        """Add a payload class; adding the same class again changes nothing."""
        known = self._by_type.get(cls.payload_type)
        if known is cls:
            return
        self._refuse_bad_class(cls)
        if known is not None and not _same_definition(known, cls):
            name = f"{known.__module__}.{known.__qualname__}"
            is_changed = (known.__module__, known.__qualname__) == (cls.__module__, cls.__qualname__)
            raise InvalidInputError(
                f"{name} was registered before with another definition; restart Python (in a notebook: the kernel) to "
                "use the new one."
                if is_changed
                else f"the type {cls.payload_type!r} is taken by {name}."
            )
        taken = next((c for c in self if c.namespace == cls.namespace and c.payload_type != cls.payload_type), None)
        if taken is not None:
            raise InvalidInputError(f"the namespace {cls.namespace!r} is taken by {taken.__qualname__}.")
        self._by_type[cls.payload_type] = cls

    def _refuse_bad_class(self, cls: type[Payload]) -> None:
        if not cls.payload_type:
            raise InvalidInputError(
                f"{cls.__qualname__} names no type: write class {cls.__name__}(Payload, type='...', namespace='...', "
                "parents=('patient',))."
            )
        if cls.payload_type != "datasource" and not set(cls.parent_types) - {cls.payload_type}:
            raise InvalidInputError(
                f"{cls.__qualname__}: every type but 'datasource' has a parent of another type; name parents=(..)."
            )
        if cls.namespace in RESERVED_NAMESPACES or cls.namespace.startswith("_"):
            raise InvalidInputError(
                f"{cls.__qualname__}: the namespace {cls.namespace!r} is a word of the client's own."
            )
        if clash := sorted(set(cls.model_fields) & set(STANDARD_COLUMNS)):
            raise InvalidInputError(f"{cls.__qualname__}: the fields {clash} clash with standard columns; rename them.")
        _refuse_bad_fields(cls)
        unknown = [p for p in cls.parent_types if p not in self._by_type and p != cls.payload_type]
        if unknown:
            raise InvalidInputError(
                f"{cls.__qualname__}: unknown parent type {unknown[0]!r}.{did_you_mean(unknown[0], self._by_type)}"
            )

    def of_type(self, type_name: str) -> type[Payload]:
        """Return the payload class of a type word such as ``volume``."""
        if type_name not in self._by_type:
            raise InvalidInputError(f"unknown type {type_name!r}.{did_you_mean(type_name, self._by_type)}")
        return self._by_type[type_name]

    def of_namespace(self, namespace: str) -> type[Payload]:
        """Return the payload class of a namespace such as ``volumes``."""
        for cls in self:
            if cls.namespace == namespace:
                return cls
        raise InvalidInputError(f"unknown namespace {namespace!r}.{did_you_mean(namespace, self.namespaces())}")

    def namespaces(self) -> list[str]:
        """List the namespaces, in the order of registration: parents before children."""
        return [cls.namespace for cls in self]

    def __contains__(self, type_name: object) -> bool:
        return type_name in self._by_type

    def __iter__(self) -> Iterator[type[Payload]]:
        return iter(self._by_type.values())


def _refuse_bad_fields(cls: type[Payload]) -> None:
    if cls.model_config.get("extra") != "forbid":
        raise InvalidInputError(f"{cls.__qualname__}: a table has fixed columns; leave extra='forbid' as it is.")
    model_columns(cls)
    if required := [name for name, field in cls.model_fields.items() if not allows_null(field)]:
        raise InvalidInputError(
            f"{cls.__qualname__}: the fields {required} do not take None; rows of frames and of older versions may "
            "lack them, so write '... | None = Field(None, description=...)'."
        )


def _same_definition(one: type[Payload], other: type[Payload]) -> bool:
    """Whether two classes are one definition, run twice (a notebook cell, a reloaded module)."""

    def definition(cls: type[Payload]) -> tuple[Any, ...]:
        fields = {name: (str(field.annotation), field.default) for name, field in cls.model_fields.items()}
        return cls.__module__, cls.__qualname__, cls.namespace, cls.parent_types, fields

    return definition(one) == definition(other)


STANDARD_PAYLOADS: tuple[type[Payload], ...] = (
    standard.DatasourcePayload,
    standard.PatientPayload,
    standard.ImagingStudyPayload,
    standard.VolumePayload,
    standard.AnnotationSessionPayload,
    standard.PiradsAssessmentPayload,
    standard.PathologySpecimenPayload,
    standard.PathologyAssessmentPayload,
    standard.PsaMeasurementPayload,
    standard.DiagnosticReportPayload,
)


@cache
def registry() -> PayloadRegistry:
    """Return the one registry of this process, with the types of installed packages."""
    known = PayloadRegistry(STANDARD_PAYLOADS)
    entries = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name)
    waiting = [_load(entry) for entry in entries]
    while waiting:  # a type may name a parent that another package brings
        ready = [cls for cls in waiting if all(p in known or p == cls.payload_type for p in cls.parent_types)]
        for cls in ready or waiting:
            known.add(cls)
        waiting = [cls for cls in waiting if cls not in ready]
    return known


def _load(entry: EntryPoint) -> type[Payload]:
    where = f"entry point {entry.name!r} = {entry.value!r} of {ENTRY_POINT_GROUP!r}"
    try:
        cls = entry.load()
    except (ImportError, AttributeError) as error:
        raise InvalidInputError(f"{where} cannot be loaded: {error}. Mend or uninstall its package.") from error
    if not (isinstance(cls, type) and issubclass(cls, Payload)):
        raise InvalidInputError(f"{where} is no subclass of Payload.")
    return cls


def register(cls: PayloadClass) -> PayloadClass:
    """Add a payload type of your own; usable as a class decorator.

    Args:
        cls: a subclass of `Payload` with the class keywords type, namespace and parents.

    Returns:
        The same class.

    Raises:
        InvalidInputError: the type or namespace is taken, a parent is unknown, a field clashes with a standard column.
    """
    registry().add(cls)
    return cls
