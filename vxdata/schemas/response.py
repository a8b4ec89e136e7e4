"""Responses: what a caller gets back, one version of one resource, frozen."""

from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, create_model

from vxdata.schemas import payload as p
from vxdata.schemas.payload import Payload, UtcDatetime

__all__ = [
    "AnnotationSessionResponse",
    "DatasourceResponse",
    "DiagnosticReportResponse",
    "ImagingStudyResponse",
    "PathologyAssessmentResponse",
    "PathologySpecimenResponse",
    "PatientResponse",
    "PiradsAssessmentResponse",
    "PsaMeasurementResponse",
    "ResourceResponse",
    "VolumeResponse",
]

PayloadT = TypeVar("PayloadT", bound=Payload, covariant=True)


class ResourceResponse(BaseModel, Generic[PayloadT]):
    """One version of one resource.

    Attributes:
        identifier: the stable name.
        parent_identifier: the parent's name; None for a datasource.
        datasource_id, patient_id, study_id: the ancestors of those types (the resource itself, if it is of that type).
        ancestors: all ancestors, root first, without the resource itself.
        valid_from: first instant of the version, UTC.
        valid_to: first instant after it, UTC; None in current and as-of answers.
        created_at: `valid_from` of the first version since the last delete, UTC.
        license: the license of the data.
        payload: the typed content.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    identifier: str
    parent_identifier: str | None
    datasource_id: str
    patient_id: str | None
    study_id: str | None
    ancestors: tuple[str, ...]
    valid_from: UtcDatetime
    valid_to: UtcDatetime | None
    created_at: UtcDatetime
    license: str | None
    payload: PayloadT


if TYPE_CHECKING:

    class DatasourceResponse(ResourceResponse[p.DatasourcePayload]):
        """One version of a datasource."""

    class PatientResponse(ResourceResponse[p.PatientPayload]):
        """One version of a patient."""

    class ImagingStudyResponse(ResourceResponse[p.ImagingStudyPayload]):
        """One version of an imaging study."""

    class VolumeResponse(ResourceResponse[p.VolumePayload]):
        """One version of a volume."""

    class AnnotationSessionResponse(ResourceResponse[p.AnnotationSessionPayload]):
        """One version of an annotation session."""

    class PiradsAssessmentResponse(ResourceResponse[p.PiradsAssessmentPayload]):
        """One version of a PI-RADS assessment."""

    class PathologySpecimenResponse(ResourceResponse[p.PathologySpecimenPayload]):
        """One version of a pathology specimen."""

    class PathologyAssessmentResponse(ResourceResponse[p.PathologyAssessmentPayload]):
        """One version of a pathology assessment."""

    class PsaMeasurementResponse(ResourceResponse[p.PsaMeasurementPayload]):
        """One version of a PSA measurement."""

    class DiagnosticReportResponse(ResourceResponse[p.DiagnosticReportPayload]):
        """One version of a diagnostic report."""

else:

    def __getattr__(name: str) -> Any:
        """Make the response class of a standard type when it is first asked for: a process uses a few of them."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return response_class(getattr(p, name.replace("Response", "Payload")))


@cache
def response_class(payload: type[Payload]) -> "type[ResourceResponse[Payload]]":
    """Return the response class of a payload class; it is made when it is first needed."""
    base = ResourceResponse[payload]  # type: ignore[valid-type]
    return create_model(
        payload.__name__.removesuffix("Payload") + "Response",
        __base__=base,
        __module__=__name__ if payload.__module__ == p.__name__ else payload.__module__,
        __doc__=f"One version of one {payload.payload_type}, as its payload tells: {payload.__doc__}",
    )
