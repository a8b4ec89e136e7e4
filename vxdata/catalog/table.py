"""The table of each payload type: its name, its columns, and the columns that a user sees."""

from dataclasses import dataclass
from functools import cache
from urllib.parse import quote

import polars as pl

from vxdata.schemas.columns import INSTANT, model_columns
from vxdata.schemas.payload import Payload
from vxdata.schemas.registry import STANDARD_COLUMNS, registry

PARTITION_COLUMN = "datasource_id"
LINEAGE_COLUMNS = {"datasource": "datasource_id", "patient": "patient_id", "imagingstudy": "study_id"}
"""The ancestor types that have a column of their own."""

METADATA_COLUMNS = (
    "identifier",
    "parent_identifier",
    "datasource_id",
    "patient_id",
    "study_id",
    "ancestors",
    "valid_from",
    "valid_to",
    "created_at",
    "license",
)
"""The standard columns that users see, in the order of the responses."""

DERIVED_COLUMNS = frozenset(METADATA_COLUMNS) - {"identifier", "parent_identifier", "license"}
"""What VxData derives by itself and ignores in a frame that is written back."""

_STANDARD_TYPES: dict[str, pl.DataType] = {
    **dict.fromkeys(STANDARD_COLUMNS, pl.String()),
    **dict.fromkeys(("valid_from", "valid_to", "closes", "created_at"), INSTANT),
    "is_deleted": pl.Boolean(),
    "ancestors": pl.List(pl.String()),
}


@dataclass(frozen=True)
class TableSpec:
    """What a payload type's table looks like.

    Attributes:
        payload: the payload class.
        fields: the payload's columns and their types.
    """

    payload: type[Payload]
    fields: dict[str, pl.DataType]

    @property
    def namespace(self) -> str:
        """The table's folder in the lake, such as ``volumes``."""
        return self.payload.namespace

    @property
    def type_name(self) -> str:
        """The type word of the identifiers, such as ``volume``."""
        return self.payload.payload_type

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """All physical columns that this SDK knows, in table order."""
        return {**_STANDARD_TYPES, **self.fields}

    @property
    def visible(self) -> dict[str, pl.DataType]:
        """The columns of an answer: the metadata in the order of the responses, then the payload's."""
        return {**{name: _STANDARD_TYPES[name] for name in METADATA_COLUMNS}, **self.fields}

    def __hash__(self) -> int:
        return hash(self.payload)


@cache
def table_spec(payload: type[Payload]) -> TableSpec:
    """Return the table spec of a payload class.

    Raises:
        InvalidInputError: a field has a type that no column can hold.
    """
    return TableSpec(payload, model_columns(payload))


def unit_of(spec: TableSpec, name: str) -> str | None:
    """Return the unit of a payload field, from `Field(json_schema_extra={"unit": ...})`."""
    extra = spec.payload.model_fields[name].json_schema_extra if name in spec.fields else None
    unit = extra.get("unit") if isinstance(extra, dict) else None
    return None if unit is None else str(unit)


def all_specs() -> list[TableSpec]:
    """Return the specs of all registered types, root first: a type is registered after its parents."""
    return [table_spec(cls) for cls in registry()]


def child_specs(type_name: str) -> list[TableSpec]:
    """Return the specs of the types that may have a parent of this type."""
    return [table_spec(cls) for cls in registry() if type_name in cls.parent_types]


def descendant_specs(type_name: str) -> list[TableSpec]:
    """Return the specs of all types that may descend from this type, ancestors before descendants."""
    found, wave = {type_name}, [type_name]
    while wave:
        wave = [s.type_name for parent in wave for s in child_specs(parent) if s.type_name not in found]
        found.update(wave)
    below = {s.type_name for t in found for s in child_specs(t)}
    return [spec for spec in all_specs() if spec.type_name in below]


MAX_FOLDER = 255
"""The most characters that a folder's name has on any file system."""


def partition_folder(datasource_id: str) -> str:
    """Return the folder of a partition inside its table; readers take the value from the log, never from here."""
    return f"{PARTITION_COLUMN}={quote(datasource_id, safe='')}"
