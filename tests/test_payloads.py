"""The ten payload types of VxData: their namespaces, parents and fields, and how resources and responses hold them."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy
import pytest
from pydantic import BeforeValidator, Field, ValidationError, field_validator

from tests.support.no_time import NAT
from vxdata.errors import InvalidInputError
from vxdata.schemas import Resource, ResourceResponse, response
from vxdata.schemas import payload as payloads
from vxdata.schemas.payload import Payload, PsaMeasurementPayload, UtcDatetime, VolumePayload
from vxdata.schemas.registry import STANDARD_PAYLOADS, registry
from vxdata.schemas.response import response_class
from vxdata.sdk import Client

TYPES = {
    "datasources": ("datasource", (), "name description"),
    "patients": ("patient", ("datasource",), "birthyear sex"),
    "imaging_studies": ("imagingstudy", ("patient",), "study_instance_uid study_datetime study_description"),
    "volumes": (
        "volume",
        ("imagingstudy",),
        "volume_type image_plane slice_thickness b_value series_description acquisition_datetime modality path_nii "
        "path_dicom segmentation_reference_uid derived_from",
    ),
    "annotation_sessions": ("annotationsession", ("patient", "imagingstudy"), "source status"),
    "pirads_assessments": ("piradsassessment", ("patient", "imagingstudy"), "score"),
    "pathology_specimens": ("pathologyspecimen", ("patient", "pathologyspecimen"), "type is_event_root"),
    "pathology_assessments": ("pathologyassessment", ("patient", "pathologyspecimen"), "isup"),
    "psa_measurements": ("psameasurement", ("patient",), "value measured_at"),
    "diagnostic_reports": ("diagnosticreport", ("patient", "imagingstudy"), "text path_pdf reported_at"),
}
"""Namespace: type, parent types, the fields that users name; as the design says."""

TYPED = {
    "birthyear": int,
    "slice_thickness": float,
    "b_value": float,
    "derived_from": list[str],
    "score": int,
    "is_event_root": bool,
    "isup": int,
    "value": float,
}
"""The named fields that are no plain texts."""


def child(identifier: str) -> Resource:
    """Return a resource below the datasource or the patient 1."""
    parent = "datasource/1" if identifier.startswith("patient") else "patient/1"
    return Resource(identifier=identifier, parent_identifier=parent)


each_class = pytest.mark.parametrize("cls", STANDARD_PAYLOADS, ids=lambda cls: cls.namespace)


def type_of_field(cls: type[Payload], name: str) -> Any:
    """Return the type of an optional field, without its None."""
    return next(t for t in get_args(cls.model_fields[name].annotation) if t is not type(None))


def test_there_are_ten_types() -> None:
    assert [cls.namespace for cls in STANDARD_PAYLOADS] == list(TYPES)
    assert registry().namespaces()[:10] == list(TYPES)


@pytest.mark.parametrize("namespace", TYPES)
def test_each_type_has_its_namespace_parents_and_fields(namespace: str) -> None:
    type_name, parents, fields = TYPES[namespace]
    cls = registry().of_namespace(namespace)
    assert (cls.payload_type, cls.parent_types) == (type_name, parents)
    assert registry().of_type(type_name) is cls
    assert set(fields.split()) <= set(cls.model_fields)


@each_class
def test_fields_are_texts_unless_a_type_is_named(cls: type[Payload]) -> None:
    for name in TYPES[cls.namespace][2].split():
        is_instant = name.endswith(("_datetime", "_at"))
        assert type_of_field(cls, name) == (UtcDatetime if is_instant else TYPED.get(name, str)), name


@each_class
def test_every_field_is_optional(cls: type[Payload]) -> None:
    assert set(cls().model_dump().values()) == {None}


@pytest.mark.parametrize("cls", list(registry()), ids=lambda cls: cls.namespace)
def test_every_field_has_a_description(cls: type[Payload]) -> None:
    described = {name: field.description or "" for name, field in cls.model_fields.items()}
    assert described
    assert all(text.endswith(".") and len(text) > 8 for text in described.values()), described


@pytest.mark.parametrize(
    ("cls", "field", "unit"),
    [
        (VolumePayload, "slice_thickness", "mm"),
        (VolumePayload, "b_value", "s/mm²"),
        (VolumePayload, "magnetic_field_strength", " T "),
        (VolumePayload, "size_mb", "MB"),
        (PsaMeasurementPayload, "value", "ng/mL"),
    ],
)
def test_a_quantity_names_its_unit(cls: type[Payload], field: str, unit: str) -> None:
    assert unit in str(cls.model_fields[field].description)


@each_class
def test_every_instant_says_that_it_is_utc(cls: type[Payload]) -> None:
    instants = [name for name in cls.model_fields if name.endswith(("_datetime", "_at"))]
    assert all("UTC" in str(cls.model_fields[name].description) for name in instants)
    assert all(type_of_field(cls, name) == UtcDatetime for name in instants)


@each_class
def test_names_are_snake_case_and_none_is_a_standard_column(cls: type[Payload]) -> None:
    metadata = set(ResourceResponse.model_fields) | {"closes", "closed_by", "commit_id", "is_deleted"}
    assert not metadata & set(cls.model_fields)
    assert all(name.isidentifier() and name.islower() for name in cls.model_fields)


@pytest.mark.parametrize("text", ["", " ", " T2 ", "no such type", "病", "x" * 10_000, "NULL", "a\nb\x00c"])
def test_texts_are_open_and_stored_as_given(tmp_path: Path, text: str) -> None:
    client = Client(tmp_path / "lake")
    made = client.datasources.create(Resource(identifier="datasource/a", license=text, payload={"name": text}))
    found = client.datasources.retrieve("datasource/a")
    assert made == found
    assert (found.payload.name, found.license) == (text, text)


def test_numbers_have_no_plausibility_ranges(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake")
    patient = Resource(identifier="patient/1", parent_identifier="datasource/a", payload={"birthyear": -(2**63)})
    score = Resource(identifier="piradsassessment/1", parent_identifier="patient/1", payload={"score": 2**63 - 1})
    client.resources.create([score, patient, Resource(identifier="datasource/a")])
    assert client.patients.retrieve("patient/1").payload.birthyear == -(2**63)
    assert client.pirads_assessments.retrieve("piradsassessment/1").payload.score == 2**63 - 1


@pytest.mark.parametrize(
    "given",
    [
        "2024-01-31T11:00:00",
        "2024-01-31T12:00:00+01:00",
        " 2024-01-31T11:00Z ",
        datetime(2024, 1, 31, 11),
        datetime(2024, 1, 31, 11, tzinfo=UTC),
        datetime(2024, 1, 31, 6, tzinfo=timezone(timedelta(hours=-5))),
    ],
)
def test_an_instant_is_kept_in_utc_and_naive_means_utc(given: Any) -> None:
    found = PsaMeasurementPayload(measured_at=given).measured_at
    assert found == datetime(2024, 1, 31, 11, tzinfo=UTC)
    assert found is not None
    assert found.utcoffset() == timedelta(0)


@pytest.mark.parametrize("given", ["yesterday", "31.01.2024", [], True])
def test_what_is_no_instant_is_a_validation_error(given: Any) -> None:
    with pytest.raises(ValidationError, match="measured_at"):
        PsaMeasurementPayload(measured_at=given)


@pytest.mark.parametrize("given", ["9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00"])
def test_an_instant_whose_utc_has_no_year_is_a_validation_error(given: str) -> None:
    with pytest.raises(ValidationError, match="measured_at"):
        PsaMeasurementPayload.model_validate({"measured_at": given})


@pytest.mark.parametrize("given", [20240102, 3.5, Decimal(3), numpy.int64(20240102), numpy.float64(3.5)])
def test_a_number_is_no_instant(tmp_path: Path, given: Any) -> None:
    with pytest.raises(ValidationError, match="ISO string, a date or a datetime"):
        PsaMeasurementPayload(measured_at=given)
    client = Client(tmp_path / "lake")
    client.resources.create([Resource(identifier="datasource/1"), child("patient/1"), child("psameasurement/1")])
    with pytest.raises(InvalidInputError, match=r"measured_at.*ISO string, a date or a datetime"):
        client.psa_measurements.update("psameasurement/1", {"measured_at": given})


@pytest.mark.parametrize("given", [True, False, "1_0", "1_0.5", numpy.True_])
@pytest.mark.parametrize(("cls", "field"), [(PsaMeasurementPayload, "value"), (payloads.PatientPayload, "birthyear")])
def test_a_bool_and_an_odd_text_are_no_numbers(cls: type[Payload], field: str, given: Any) -> None:
    with pytest.raises(ValidationError, match=f"{field}\n  Input should be .*number"):
        cls.model_validate({field: given})


@pytest.mark.parametrize("given", [1950, 1950.0, numpy.int64(1950), numpy.float64(1950)])
def test_whole_numbers_of_all_kinds_are_ints(given: Any) -> None:
    assert payloads.PatientPayload(birthyear=given).birthyear == 1950


def test_a_type_of_ones_own_guesses_as_little() -> None:
    class Biopsy(Payload):
        taken_at: datetime | None = None
        day: date | None = None
        cores: Annotated[int, Field(ge=0)] = 0
        seconds: Annotated[datetime, BeforeValidator(lambda value: datetime.fromtimestamp(value, UTC))] | None = None
        length: float | None = None

        @field_validator("length", mode="before")
        @classmethod
        def _without_unit(cls, value: Any) -> Any:
            return value.removesuffix(" mm")

    wrong = {"taken_at": "20240102", "day": 19_000, "cores": True}
    for name, value in wrong.items():
        with pytest.raises(ValidationError, match=f"{name}\n  Input should be a"):
            Biopsy.model_validate({name: value})
    right = Biopsy(taken_at="2024-01-02", day="2024-01-02", cores=3, seconds=0, length="3 mm")  # type: ignore[arg-type]
    assert (right.day, right.cores, right.length) == (date(2024, 1, 2), 3, 3.0)
    assert right.seconds == datetime(1970, 1, 1, tzinfo=UTC)


def test_a_time_that_is_none_is_null(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake")
    psa = Resource(
        identifier="psameasurement/1", parent_identifier="patient/1", payload={"value": 4.5, "measured_at": NAT}
    )
    client.resources.create([Resource(identifier="datasource/1"), child("patient/1"), psa])
    assert client.psa_measurements.retrieve("psameasurement/1").payload == PsaMeasurementPayload(value=4.5)
    client.psa_measurements.update("psameasurement/1", {"measured_at": "2024-01-31"})
    cleared = client.psa_measurements.update("psameasurement/1", {"measured_at": NAT})
    assert cleared.payload.measured_at is None


def test_a_payload_is_frozen_and_refuses_unknown_fields() -> None:
    volume = VolumePayload(volume_type="T2")
    with pytest.raises(ValidationError, match="frozen"):
        volume.volume_type = "ADC"
    with pytest.raises(ValidationError, match="volume_typ"):
        VolumePayload.model_validate({"volume_typ": "T2"})


def test_a_resource_takes_its_payload_as_model_as_mapping_or_not_at_all() -> None:
    model = Resource(identifier="volume/1", payload=VolumePayload(b_value=800))
    assert model == Resource(identifier="volume/1", payload={"b_value": 800})
    assert Resource(identifier="volume/1").payload == VolumePayload()


@pytest.mark.parametrize(
    "content",
    [
        {"identifier": "volume/1", "payload": payloads.PatientPayload()},
        {"identifier": "volume/1", "payload": {"isup": 3}},
        {"identifier": "volume/1", "payload": {"b_value": "thick"}},
        {"identifier": "volume/1", "payload": "T2"},
        {"identifier": "volumes/1", "payload": {}},
        {"identifier": "volume/1", "licence": "CC0"},
        {"identifier": "volume/1", "license": 4},
        {"payload": {}},
    ],
)
def test_building_a_wrong_resource_is_a_validation_error(content: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Resource.model_validate(content)


def test_a_resource_of_an_unknown_type_names_the_nearest() -> None:
    with pytest.raises(ValidationError, match="Did you mean 'volume'"):
        Resource(identifier="volumes/1")


def test_a_resource_survives_json() -> None:
    resource = Resource(identifier="volume/1", license="CC0", payload={"derived_from": ["volume/0"]})
    assert Resource.model_validate_json(resource.model_dump_json()) == resource


@each_class
def test_each_type_has_a_response_by_inheritance(cls: type[Payload]) -> None:
    name = cls.__name__.removesuffix("Payload") + "Response"
    assert name in response.__all__
    assert response_class(cls) is getattr(response, name)
    assert ResourceResponse[cls] in response_class(cls).__mro__  # type: ignore[valid-type]


def test_a_derived_from_need_not_exist(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake")
    chain = ["datasource/a", "patient/1", "imagingstudy/1", "volume/1"]
    resources = [Resource(identifier=i, parent_identifier=p) for i, p in zip(chain, [None, *chain], strict=False)]
    client.resources.create(resources)
    changed = client.volumes.update("volume/1", {"derived_from": ["volume/none", ""]})
    assert changed.payload.derived_from == ["volume/none", ""]
    assert client.volumes.update("volume/1", {"derived_from": []}).payload.derived_from == []
