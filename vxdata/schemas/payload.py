"""The payload models: what each type of resource holds.

Every field is optional and an open string unless a type is given; units and DICOM keywords stand in the descriptions,
the unit of a number in `json_schema_extra={"unit": ...}` as well, for programs.
A team adds a type of its own by subclassing `Payload`::

    class Biopsy(Payload, type="biopsy", namespace="biopsies", parents=("patient",)):
        cores: int | None = Field(default=None, description="Number of cores taken.")

Source: design of record, section 2; DICOM PS3.3 and PS3.6 for attribute names.
"""

import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from vxdata.errors import InvalidInputError
from vxdata.schemas.instant import to_instant
from vxdata.schemas.kinds import read_kinds

UtcDatetime = Annotated[datetime, BeforeValidator(to_instant)]
"""An instant in UTC, microseconds. Naive datetimes and ISO strings without an offset are taken as UTC."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")


if TYPE_CHECKING:

    class _WithKeywords(BaseModel):
        def __init_subclass__(
            cls, *, type: str = "", namespace: str = "", parents: tuple[str, ...] = (), **kwargs: Any
        ) -> None: ...

else:

    class _PayloadMeta(type(BaseModel)):
        """Reads the class keywords of payload types.

        pydantic's metaclass has a parameter of its own called `namespace`: the keyword is taken out before it sees it.
        """

        def __new__(
            mcs,
            name: str,
            bases: tuple[type, ...],
            attributes: dict[str, Any],
            /,
            *,
            type: str = "",
            namespace: str = "",
            parents: tuple[str, ...] = (),
            **kwargs: Any,
        ) -> Any:
            cls = super().__new__(mcs, name, bases, attributes, **kwargs)
            if type or namespace or parents:
                for word, value in (("type", type), ("namespace", namespace)):
                    if not _NAME.fullmatch(value):
                        raise InvalidInputError(
                            f"{name}: {word}={value!r} is no name: lower-case letters, digits and '_' are expected, "
                            "a letter first."
                        )
                cls.payload_type, cls.namespace, cls.parent_types = type, namespace, tuple(parents)
            return cls

    class _WithKeywords(BaseModel, metaclass=_PayloadMeta):
        """The base that takes the keywords; type checkers see them on `__init_subclass__`."""

        model_config = ConfigDict(defer_build=True)


class Payload(_WithKeywords):
    """Base of all payload models.

    Subclass keywords:
        type: the word that starts the identifiers of this type, such as ``volume``.
        namespace: the plural that names the table and the client's attribute, such as ``volumes``.
        parents: the types that a parent may have; empty for a root (only ``datasource`` is one).
    """

    # validators are built when a model is first used: a process uses a few of all types
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    payload_type: ClassVar[str] = ""
    namespace: ClassVar[str] = ""
    parent_types: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _refuse_other_kinds(cls, given: Any) -> Any:
        return read_kinds(cls, given) if isinstance(given, dict) else given


class DatasourcePayload(Payload, type="datasource", namespace="datasources"):
    """A trial, a clinic or a public collection: the root of a lineage."""

    name: str | None = Field(default=None, description="Human-readable name.")
    description: str | None = Field(default=None, description="What the data source holds and where it comes from.")
    program: str | None = Field(default=None, description="Research programme that the data source belongs to.")
    species: str | None = Field(default=None, description="Species of the subjects (DICOM PatientSpeciesDescription).")
    cancer_types: str | None = Field(default=None, description="Cancer types studied, as the source words them.")
    tumor_locations: str | None = Field(default=None, description="Tumour locations studied, as the source words them.")
    origin: str | None = Field(default=None, description="Archive or system that the data source is loaded from.")


class PatientPayload(Payload, type="patient", namespace="patients", parents=("datasource",)):
    """One person (or animal, or phantom) of a data source."""

    birthyear: int | None = Field(
        default=None, description="Year of birth, calendar year (from DICOM PatientBirthDate)."
    )
    sex: str | None = Field(default=None, description="Sex as recorded (DICOM PatientSex: M, F, O).")
    species: str | None = Field(default=None, description="Species (DICOM PatientSpeciesDescription).")
    ethnic_group: str | None = Field(default=None, description="Ethnic group (DICOM EthnicGroup).")


class ImagingStudyPayload(Payload, type="imagingstudy", namespace="imaging_studies", parents=("patient",)):
    """One imaging examination (a DICOM study)."""

    study_instance_uid: str | None = Field(default=None, description="Unique identifier (DICOM StudyInstanceUID).")
    study_datetime: UtcDatetime | None = Field(
        default=None, description="Start of the study, UTC (DICOM StudyDate and StudyTime)."
    )
    study_description: str | None = Field(default=None, description="Description (DICOM StudyDescription).")
    accession_number: str | None = Field(default=None, description="Number of the order (DICOM AccessionNumber).")
    patient_age: str | None = Field(
        default=None,
        description="Age of the patient at the study, DICOM age string: nnnD, nnnW, nnnM or nnnY (DICOM PatientAge).",
    )


class VolumePayload(Payload, type="volume", namespace="volumes", parents=("imagingstudy",)):
    """One image series or what was derived from it: an MRI volume, a segmentation, a map."""

    volume_type: str | None = Field(default=None, description="Kind of volume, such as T2, ADC, DWI, DCE or SEG.")
    image_plane: str | None = Field(default=None, description="Plane of the slices: transversal, sagittal or coronal.")
    slice_thickness: float | None = Field(
        default=None,
        description="Nominal slice thickness, mm (DICOM SliceThickness).",
        json_schema_extra={"unit": "mm"},
    )
    b_value: float | None = Field(
        default=None,
        description="Diffusion weighting, s/mm² (DICOM DiffusionBValue).",
        json_schema_extra={"unit": "s/mm²"},
    )
    series_description: str | None = Field(default=None, description="Description (DICOM SeriesDescription).")
    acquisition_datetime: UtcDatetime | None = Field(
        default=None, description="Start of the acquisition, UTC (DICOM AcquisitionDateTime)."
    )
    modality: str | None = Field(default=None, description="Modality, such as MR, CT, SEG (DICOM Modality).")
    path_nii: str | None = Field(default=None, description="Address of the NIfTI file.")
    path_dicom: str | None = Field(default=None, description="Address of the DICOM series: a folder or an S3 prefix.")
    segmentation_reference_uid: str | None = Field(
        default=None, description="Series that a segmentation refers to (DICOM SeriesInstanceUID of the reference)."
    )
    derived_from: list[str] | None = Field(
        default=None, description="Identifiers of the resources that this one was made from; not checked for existence."
    )
    series_instance_uid: str | None = Field(default=None, description="Unique identifier (DICOM SeriesInstanceUID).")
    series_number: int | None = Field(
        default=None, description="Number of the series in its study (DICOM SeriesNumber)."
    )
    series_datetime: UtcDatetime | None = Field(
        default=None, description="Start of the series, UTC (DICOM SeriesDate and SeriesTime)."
    )
    body_part_examined: str | None = Field(default=None, description="Body part (DICOM BodyPartExamined).")
    manufacturer: str | None = Field(default=None, description="Maker of the device (DICOM Manufacturer).")
    manufacturer_model_name: str | None = Field(
        default=None, description="Model of the device (DICOM ManufacturerModelName)."
    )
    magnetic_field_strength: float | None = Field(
        default=None,
        description="Field strength, T (DICOM MagneticFieldStrength).",
        json_schema_extra={"unit": "T"},
    )
    sop_class_uid: str | None = Field(default=None, description="Kind of DICOM object (DICOM SOPClassUID).")
    transfer_syntax_uid: str | None = Field(
        default=None, description="Encoding of the files (DICOM TransferSyntaxUID)."
    )
    photometric_interpretation: str | None = Field(
        default=None, description="Meaning of the pixel values (DICOM PhotometricInterpretation)."
    )
    pixel_representation: str | None = Field(
        default=None,
        description="Sign of the stored pixels as recorded: 0 unsigned, 1 signed (DICOM PixelRepresentation).",
    )
    number_of_series_related_instances: int | None = Field(
        default=None, description="Files in the series, a count (DICOM NumberOfSeriesRelatedInstances)."
    )
    size_mb: float | None = Field(
        default=None,
        description="Size of the series, MB (10^6 bytes).",
        json_schema_extra={"unit": "MB"},
    )
    source_doi: str | None = Field(
        default=None, description="DOI of the publication or data set that the series belongs to."
    )
    analysis_result: str | None = Field(
        default=None, description="Name of the analysis that produced the series; null for acquired images."
    )


class AnnotationSessionPayload(
    Payload, type="annotationsession", namespace="annotation_sessions", parents=("patient", "imagingstudy")
):
    """One sitting of a reader or of a tool that annotates images."""

    source: str | None = Field(default=None, description="Where the annotations come from, such as manual-masks.")
    status: str | None = Field(default=None, description="State of the session, such as draft or submitted.")
    reader: str | None = Field(default=None, description="Pseudonym of the reader (DICOM OperatorsName).")
    started_at: UtcDatetime | None = Field(default=None, description="Start of the session, UTC.")
    submitted_at: UtcDatetime | None = Field(default=None, description="When the session was submitted, UTC.")


class PiradsAssessmentPayload(
    Payload, type="piradsassessment", namespace="pirads_assessments", parents=("patient", "imagingstudy")
):
    """A reader's PI-RADS assessment."""

    score: int | None = Field(default=None, description="PI-RADS category, 1 to 5.")
    version: str | None = Field(default=None, description="Version of PI-RADS, such as 2.1.")
    reader: str | None = Field(default=None, description="Pseudonym of the reader.")
    lesion_location: str | None = Field(default=None, description="Sector of the lesion, as the report words it.")
    assessed_at: UtcDatetime | None = Field(default=None, description="When the assessment was made, UTC.")


class PathologySpecimenPayload(
    Payload, type="pathologyspecimen", namespace="pathology_specimens", parents=("patient", "pathologyspecimen")
):
    """Tissue that pathology looks at, or a part of it."""

    type: str | None = Field(default=None, description="Kind of specimen, such as RPE (prostatectomy) or biopsy.")
    is_event_root: bool | None = Field(
        default=None, description="Whether the specimen is the root of its sampling event."
    )
    specimen_identifier: str | None = Field(default=None, description="Laboratory's number (DICOM SpecimenIdentifier).")
    anatomic_location: str | None = Field(default=None, description="Where it was taken, as the report words it.")
    collected_at: UtcDatetime | None = Field(default=None, description="When it was taken, UTC.")


class PathologyAssessmentPayload(
    Payload, type="pathologyassessment", namespace="pathology_assessments", parents=("patient", "pathologyspecimen")
):
    """A pathologist's finding."""

    isup: int | None = Field(default=None, description="ISUP grade group, 1 to 5; 0 for benign.")
    gleason_primary: int | None = Field(default=None, description="Primary Gleason pattern, 1 to 5.")
    gleason_secondary: int | None = Field(default=None, description="Secondary Gleason pattern, 1 to 5.")
    assessed_at: UtcDatetime | None = Field(default=None, description="When the assessment was made, UTC.")


class PsaMeasurementPayload(Payload, type="psameasurement", namespace="psa_measurements", parents=("patient",)):
    """One measurement of prostate-specific antigen."""

    value: float | None = Field(
        default=None,
        description="Total PSA in serum, ng/mL.",
        json_schema_extra={"unit": "ng/mL"},
    )
    measured_at: UtcDatetime | None = Field(default=None, description="When the blood was taken, UTC.")


class DiagnosticReportPayload(
    Payload, type="diagnosticreport", namespace="diagnostic_reports", parents=("patient", "imagingstudy")
):
    """A written report."""

    text: str | None = Field(default=None, description="Text of the report.")
    path_pdf: str | None = Field(default=None, description="Address of the PDF file.")
    reported_at: UtcDatetime | None = Field(default=None, description="When the report was signed, UTC.")
