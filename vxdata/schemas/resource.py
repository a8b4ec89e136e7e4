"""`Resource`: what a caller hands in to create a resource."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, SerializeAsAny, field_validator, model_validator

from vxdata.schemas.identifiers import identifier_fault, type_of
from vxdata.schemas.payload import Payload
from vxdata.schemas.registry import registry


class Resource(BaseModel):
    """One thing to create: its identifier, its parent, its license and its content.

    The payload is the payload model, or a mapping that is checked against the model that the identifier's type names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    identifier: str
    parent_identifier: str | None = None
    license: str | None = None
    payload: SerializeAsAny[Payload]

    if TYPE_CHECKING:  # what callers may pass, for type checkers that do not know the validators below

        def __init__(
            self,
            *,
            identifier: str,
            parent_identifier: str | None = None,
            license: str | None = None,
            payload: Payload | Mapping[str, Any] | None = None,
        ) -> None: ...

    @field_validator("identifier", "parent_identifier")
    @classmethod
    def _well_formed(cls, value: str | None) -> str | None:
        if value is not None and (fault := identifier_fault(value)):
            raise ValueError(f"{value!r} is no identifier: {fault}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _read_payload(cls, data: Any) -> Any:
        """Build the payload model that the identifier's type names, out of a mapping or of nothing."""
        if not isinstance(data, Mapping) or not isinstance(data.get("identifier"), str):
            return data
        payload = data.get("payload")
        if isinstance(payload, Payload) or not (payload is None or isinstance(payload, Mapping)):
            return data
        expected = registry().of_type(type_of(data["identifier"]))
        return {**data, "payload": expected.model_validate(dict(payload or {}))}

    @model_validator(mode="after")
    def _payload_is_of_the_type(self) -> "Resource":
        expected = registry().of_type(type_of(self.identifier))
        if type(self.payload) is not expected:
            raise ValueError(
                f"{self.identifier!r} takes a {expected.__name__} as payload, not a {type(self.payload).__name__}"
            )
        return self
