"""Identifiers: what is one, what is none, and that real patient codes survive every path."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vxdata.errors import InvalidInputError
from vxdata.schemas import Resource
from vxdata.schemas.identifiers import MAX_LENGTH, check_identifier, identifier_fault, type_of
from vxdata.sdk import Client, F, has_ancestor

CODES = [
    "BB00017",
    "ZZ RIDER MR8 1",
    "a=b",
    "a#b?c&d",
    "100%",
    "a%2Fb",
    "a+b",
    "é–ß 病人 🧬",
    'it\'s "so"',
    "{x}[y]*",
    "...",
    "-",
    "a\\b",
    "C:d|e<f>",
    "_delta_log",
    "~",
]
"""Codes as hospitals give them, and those that some layer between us and the disk may misread."""

MALFORMED = [
    ("", "<type>"),
    ("patient", "<type>"),
    ("/BB1", "<type>"),
    ("patient/", "empty"),
    ("patient//1", "empty"),
    ("patient/1/", "empty"),
    ("patient/.", "'.'"),
    ("patient/../x", "'..'"),
    ("patient/ 1", "blank"),
    ("patient/1 ", "blank"),
    ("patient/1 /2", "blank"),
    ("patient/\u00a01", "blank"),
    ("patient/a\nb", "printable"),
    ("patient/a\tb", "printable"),
    ("patient/a\x00b", "printable"),
    ("patient/a\u200bb", "printable"),
    ("patient/a\u2028b", "printable"),
    ("patient/" + "x" * (MAX_LENGTH - 7), "513 characters"),
]
"""Texts that are no identifiers, and a word of the reason."""


@pytest.fixture(scope="module")
def frame_client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    """A client whose lake has one datasource, for judging frames of patients."""
    client = Client(tmp_path_factory.mktemp("identifiers") / "lake")
    client.datasources.create(Resource(identifier="datasource/a"))
    return client


def refused_by_a_frame(client: Client, identifiers: list[str]) -> set[str]:
    """Return the identifiers that an upsert of new patients refuses; nothing is written."""
    frame = pl.DataFrame({"identifier": identifiers, "parent_identifier": ["datasource/none"] * len(identifiers)})
    rejected = client.patients.upsert(frame, on_invalid="skip").rejected
    return set(rejected.filter(pl.col("reason").str.contains("is no identifier|is of the type"))["identifier"])


@pytest.mark.parametrize("code", CODES)
def test_real_codes_are_identifiers(code: str) -> None:
    assert check_identifier(f"patient/{code}") == f"patient/{code}"
    assert Resource(identifier=f"volume/{code}/s-1/{code}").identifier == f"volume/{code}/s-1/{code}"


@pytest.mark.parametrize(("text", "word"), MALFORMED)
def test_a_malformed_identifier_is_refused_with_the_value_and_the_reason(text: str, word: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        check_identifier(text)
    assert repr(text) in str(raised.value)
    assert word in str(raised.value)


@pytest.mark.parametrize("value", [None, 7, b"patient/1", ["patient/1"], 1.5])
def test_what_is_no_text_is_no_identifier(value: object) -> None:
    with pytest.raises(InvalidInputError, match=f"not {type(value).__name__}"):
        check_identifier(value)


def test_the_longest_identifier_has_512_characters() -> None:
    longest = "patient/" + "é" * (MAX_LENGTH - len("patient/"))
    assert check_identifier(longest) == longest
    assert "513" in str(identifier_fault(longest + "x"))


def test_the_type_is_the_first_word() -> None:
    assert type_of("volume/DA001/s/1") == "volume"


@pytest.mark.parametrize("text", [text for text, _ in MALFORMED])
def test_building_a_resource_with_a_malformed_identifier_is_a_validation_error(text: str) -> None:
    with pytest.raises(ValidationError):
        Resource(identifier=text)
    with pytest.raises(ValidationError):
        Resource(identifier="volume/1", parent_identifier=text)


@pytest.mark.parametrize("verb", ["retrieve", "update", "delete", "history"])
@pytest.mark.parametrize("text", ["patient/..", "patient", "patient/ x", "patient/a\nb"])
def test_every_verb_refuses_a_malformed_identifier(frame_client: Client, verb: str, text: str) -> None:
    with pytest.raises(InvalidInputError, match="is no identifier"):
        getattr(frame_client.patients, verb)(text)


def test_a_frame_refuses_what_a_model_refuses(frame_client: Client) -> None:
    texts = [text for text, _ in MALFORMED] + [f"patient/{code}" for code in CODES]
    refused = refused_by_a_frame(frame_client, texts)
    assert refused == {text for text, _ in MALFORMED}


def test_a_frame_refuses_a_letter_that_this_python_does_not_know(frame_client: Client) -> None:
    names = ["patient/\u0897", "patient/a\u0897b", "patient/\U0001e5d0"]  # of Unicode 16
    assert refused_by_a_frame(frame_client, names) == {name for name in names if identifier_fault(name)}


segments = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.builds("patient/{}".format, segments) | segments, min_size=1, max_size=20, unique=True))
def test_frames_and_models_agree_on_every_text(frame_client: Client, names: list[str]) -> None:
    refused = refused_by_a_frame(frame_client, names)
    assert refused == {name for name in names if identifier_fault(name) or type_of(name) != "patient"}


def test_real_codes_survive_every_path(lake_uri: str) -> None:
    client, reader = Client(lake_uri), Client(lake_uri)
    sources = [Resource(identifier=f"datasource/{code}", payload={"name": code}) for code in CODES]
    patients = [
        Resource(identifier=f"patient/{code}", parent_identifier=f"datasource/{code}", payload={"sex": code})
        for code in CODES
    ]
    client.resources.create([*patients, *sources])
    names = [patient.identifier for patient in patients]
    assert [found.payload.sex for found in reader.patients.retrieve(names)] == CODES
    assert [found.datasource_id for found in reader.patients.retrieve(names)] == [s.identifier for s in sources]
    frame = reader.patients.query().collect()
    assert set(frame["identifier"]) == set(names)
    assert client.patients.upsert(frame.with_columns(birthyear=pl.lit(1950))).updated == len(CODES)
    assert all(reader.patients.query().filter(F.datasource_id == f"datasource/{c}").count() == 1 for c in CODES)
    assert all(reader.patients.query().filter(F.patient_id == c).count() == 1 for c in CODES)


@pytest.mark.parametrize("code", CODES)
def test_a_code_names_a_partition_from_creation_to_deletion(tmp_path: Path, code: str) -> None:
    client = Client(tmp_path / "a lake #1" / "é")
    source, patient = f"datasource/{code}", f"patient/{code}"
    client.resources.create([Resource(identifier=patient, parent_identifier=source), Resource(identifier=source)])
    client.patients.update(patient, {"birthyear": 1950})
    assert client.patients.query().filter(has_ancestor(source)).count() == 1
    assert len(client.patients.history(patient)) == 2
    client.resources.delete(source, cascade=True)
    assert client.patients.query().count() == client.datasources.query().count() == 0


@pytest.mark.parametrize("name", ["x" * 501, "病" * 40, " ".join("x" * 100)], ids=["x", "病", "blanks"])
def test_a_datasource_whose_name_fits_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    client, source = Client(tmp_path / "lake"), f"datasource/{name}"
    with pytest.raises(InvalidInputError, match="too long to name a folder"):
        client.datasources.create(Resource(identifier=source, payload={}))
    with pytest.raises(InvalidInputError, match="too long to name a folder"):
        client.datasources.upsert(pl.DataFrame({"identifier": [source]}))
