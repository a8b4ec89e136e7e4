"""A team's own payload types: registered in code, in a notebook, or by an installed package."""

import shutil
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    computed_field,
    field_serializer,
    field_validator,
)
from vxdata_test_plugin import Biopsy, Core, Needle

from vxdata.errors import InvalidInputError
from vxdata.schemas import Payload, Resource, ResourceResponse, register
from vxdata.schemas.payload import PatientPayload
from vxdata.schemas.registry import ENTRY_POINT_GROUP, STANDARD_COLUMNS, PayloadRegistry, registry
from vxdata.schemas.response import response_class
from vxdata.sdk import Client, F, has_ancestor

Install = Callable[[str, dict[str, str]], None]
PARENTS = [Resource(identifier="patient/1", parent_identifier="datasource/a"), Resource(identifier="datasource/a")]
BIOPSY = Biopsy(
    technique="transperineal",
    taken_on=date(2024, 2, 29),
    reported_at=datetime(2024, 3, 1, 12, tzinfo=UTC),
    is_targeted=False,
    prostate_volume=Decimal("41.50"),
    needle=Needle(maker="", gauge=18),
    cores=[Core(location="PZ", length_mm=12.5, gleason=[3, 4]), Core(gleason=[])],
    remarks=[],
    thumbnail=b"\x89PNG\x00",
)


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> PayloadRegistry:
    """The process's registry; what the test registers is forgotten afterwards."""
    monkeypatch.setattr(registry(), "_by_type", dict(registry()._by_type))
    return registry()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a lake that holds a patient; the tests get copies."""
    client = Client(tmp_path_factory.mktemp("template") / "lake")
    client.resources.create(PARENTS)
    return Path(client.uri)


@pytest.fixture
def client(template: Path, tmp_path: Path) -> Client:
    return Client(shutil.copytree(template, tmp_path / "lake"))


def make(fields: dict[str, Any] | None = None, **keywords: Any) -> type[Payload]:
    """Return a new payload class, of a type that is free unless a keyword says otherwise."""
    names = {"type": "scan", "namespace": "scans", "parents": ("patient",)} | keywords
    wanted = {name: value for name, value in names.items() if value is not None}
    attributes = {"__module__": __name__, "__annotations__": dict.fromkeys(fields or {}, str | None)}
    return type(Payload)("Scan", (Payload,), attributes | dict.fromkeys(fields or {}), **wanted)  # type: ignore[no-any-return]


def a_scan(identifier: str = "scan/1", **payload: Any) -> Resource:
    return Resource(identifier=identifier, parent_identifier="patient/1", payload=payload)


# -- in code


def test_a_registered_type_gets_a_namespace_like_any_other(types: PayloadRegistry, client: Client) -> None:
    @register
    class Scan(Payload, type="scan", namespace="scans", parents=("patient",)):
        body: str | None = None
        dose: float | None = None

    assert client.scans.create(a_scan(body="arm")).payload == Scan(body="arm")
    assert client.scans.update("scan/1", {"dose": 1.5}).payload == Scan(body="arm", dose=1.5)
    assert client.resources.retrieve("scan/1").ancestors == ("datasource/a", "patient/1")
    assert client.scans.query().filter(F.dose > 1, has_ancestor("patient/1")).count() == 1
    assert client.patients.delete("patient/1", cascade=True).deleted == {"scans": 1, "patients": 1}
    assert [version.payload for version in client.scans.history("scan/1")] == [
        Scan(body="arm"),
        Scan(body="arm", dose=1.5),
    ]


def test_a_type_may_hang_below_another_team_type(types: PayloadRegistry, client: Client) -> None:
    register(make())
    register(make(type="region", namespace="regions", parents=("scan", "region")))
    outer, inner = ("region/outer", "scan/1"), ("region/inner", "region/outer")
    regions = [Resource(identifier=i, parent_identifier=p) for i, p in (inner, outer)]
    client.resources.create([*regions, a_scan()])
    assert client.regions.retrieve("region/inner").ancestors == ("datasource/a", "patient/1", "scan/1", "region/outer")
    assert client.resources.delete("scan/1", cascade=True).deleted == {"regions": 2, "scans": 1}


def test_the_namespace_of_a_class_is_the_client_attribute(types: PayloadRegistry, client: Client) -> None:
    scan = register(make({"body": None}))
    client.namespace(scan).create(a_scan(body="leg"))
    assert client.scans.retrieve("scan/1") == client.namespace(scan).retrieve("scan/1")
    assert "scans" in dir(client)
    assert issubclass(response_class(scan), ResourceResponse)


def test_a_class_that_is_not_registered_has_no_namespace(client: Client) -> None:
    with pytest.raises(InvalidInputError, match=r"register\(Scan\)"):
        client.namespace(make())
    with pytest.raises(InvalidInputError):
        client.namespace(Payload)


def test_an_unknown_namespace_names_the_nearest(client: Client) -> None:
    with pytest.raises(AttributeError, match="Did you mean 'patients'"):
        client.patient  # noqa: B018
    with pytest.raises(InvalidInputError, match="'volume'"):
        registry().of_type("volumme")
    with pytest.raises(InvalidInputError, match="'volumes'"):
        registry().of_namespace("volumess")


@pytest.mark.parametrize("column", STANDARD_COLUMNS)
def test_a_field_that_clashes_with_a_standard_column_is_refused(types: PayloadRegistry, column: str) -> None:
    with pytest.raises(InvalidInputError, match=column):
        register(make({column: None}))
    assert "scan" not in types


@pytest.mark.parametrize(
    ("keywords", "word"),
    [
        ({"type": "volume"}, "'volume' is taken"),
        ({"namespace": "volumes"}, "'volumes' is taken"),
        ({"parents": ("patiennt",)}, "Did you mean 'patient'"),
        ({"parents": ("patient", "nothing")}, "'nothing'"),
        ({"parents": ()}, "parent"),
        ({"parents": None}, "parent"),
        ({"parents": ("scan",)}, "parent"),
        ({"type": "datasource", "parents": ()}, "'datasource' is taken"),
    ],
)
def test_a_type_that_clashes_is_refused(types: PayloadRegistry, keywords: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidInputError, match=word):
        register(make(**keywords))
    assert "scans" not in types.namespaces()


@pytest.mark.parametrize(
    "keywords",
    [{"type": t} for t in ("Scan", "scan/x", "1scan", "", "scan type")]
    + [{"namespace": n} for n in ("Scans", "../scans", "_scans", "", None)]
    + [{"type": None}],
)
def test_a_name_that_is_no_name_is_refused_where_the_class_is_defined(keywords: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="no name"):
        make(**keywords)


def test_a_class_without_a_type_is_refused(types: PayloadRegistry) -> None:
    with pytest.raises(InvalidInputError, match="type="):
        register(make(type=None, namespace=None, parents=None))


TAKEN = [n for n in dir(Client) if n.islower() and not n.startswith("_") and n not in registry().namespaces()]


@pytest.mark.parametrize("word", TAKEN)
def test_a_namespace_never_hides_a_word_of_the_client(types: PayloadRegistry, word: str) -> None:
    with pytest.raises(InvalidInputError, match=word):
        register(make(namespace=word))


def test_a_field_without_a_column_type_is_refused_at_registration(types: PayloadRegistry, client: Client) -> None:
    class Scan(Payload, type="scan", namespace="scans", parents=("patient",)):
        tags: dict[str, str] | None = None

    with pytest.raises(InvalidInputError, match="tags"):
        register(Scan)
    assert client.patients.update("patient/1", {"sex": "M"}).payload.sex == "M"


@pytest.mark.parametrize("default", [..., "left"])
def test_a_field_that_cannot_be_null_is_refused_at_registration(types: PayloadRegistry, default: Any) -> None:
    class Scan(Payload, type="scan", namespace="scans", parents=("patient",)):
        side: str = Field(default, description="Old rows, and rows of frames, may lack it: their column is null.")

    with pytest.raises(InvalidInputError, match="side"):
        register(Scan)


NAMES = ["reason", "last", "len", "count", "type", "value", "key", "index", "name", "size", "path", "level", "element"]


def test_a_field_may_have_any_other_name(types: PayloadRegistry, client: Client) -> None:
    register(make(dict.fromkeys(NAMES)))
    first, second = ({name: f"{name} {n}" for name in NAMES} for n in (1, 2))
    client.scans.create(a_scan(**first))
    frame = client.scans.query().collect().with_columns(pl.lit(second[name]).alias(name) for name in NAMES)
    invalid = frame.with_columns(identifier=pl.lit("patient/9"))
    report = client.scans.upsert(pl.concat([frame, invalid]), on_invalid="skip")
    assert (report.updated, report.rejected.height) == (1, 1)
    assert client.scans.retrieve("scan/1").payload.model_dump() == second


def test_a_subclass_that_nobody_registered_is_refused(types: PayloadRegistry, client: Client) -> None:
    class Veteran(PatientPayload):
        service: str | None = None

    with pytest.raises(ValidationError, match="Veteran"):
        Resource(identifier="patient/2", parent_identifier="datasource/a", payload=Veteran(service="navy"))
    with pytest.raises(InvalidInputError, match=r"Veteran|service"):
        client.patients.update("patient/1", Veteran(service="navy"))


# -- what else pydantic can do


def test_a_field_with_an_alias_is_stored_and_read_by_its_name(types: PayloadRegistry, client: Client) -> None:
    @register
    class Scan(Payload, type="scan", namespace="scans", parents=("patient",)):
        body: str | None = Field(None, alias="BodyPartExamined")

    assert client.scans.create(a_scan(BodyPartExamined="arm")).payload.body == "arm"
    assert client.scans.update("scan/1", {"body": "leg"}).payload.body == "leg"
    assert client.scans.query().filter(F.body == "leg").collect_as_pydantic()[0].payload.body == "leg"


def test_a_field_is_stored_as_it_is_whatever_the_model_dumps(types: PayloadRegistry, client: Client) -> None:
    @register
    class Scan(Payload, type="scan", namespace="scans", parents=("patient",)):
        body: str | None = Field(None, exclude=True)
        dose: float | None = None

        @field_serializer("dose")
        def _in_words(self, dose: float | None) -> str:
            return f"{dose} mSv"

        @computed_field(return_type=str)
        def title(self) -> str:
            return f"{self.body}!"

    assert client.scans.create(a_scan(body="arm", dose=1.5)).payload == Scan(body="arm", dose=1.5)
    assert client.scans.query().select("body", "dose").collect().rows() == [("arm", 1.5)]
    assert client.scans.update("scan/1", Scan(body="leg", dose=2)).payload == Scan(body="leg", dose=2)


def test_validators_judge_an_update_too(types: PayloadRegistry, client: Client) -> None:
    @register
    class Scan(Payload, type="scan", namespace="scans", parents=("patient",)):
        body: str | None = None

        @field_validator("body")
        @classmethod
        def _known(cls, body: str | None) -> str | None:
            if body == "tail":
                raise ValueError("no such part")
            return body and body.upper()

    client.scans.create(a_scan(body="arm"))
    with pytest.raises(InvalidInputError, match="no such part"):
        client.scans.update("scan/1", {"body": "tail"})
    assert client.scans.retrieve("scan/1").payload.body == "ARM"
    assert client.scans.update("scan/1", {"body": "leg"}).payload.body == "LEG"
    assert client.scans.query().select("body").collect()["body"].to_list() == ["LEG"]


def test_a_type_that_takes_any_field_is_refused(types: PayloadRegistry) -> None:
    class Scan(Payload, type="scan", namespace="scans", parents=("patient",)):
        model_config = ConfigDict(extra="allow")
        body: str | None = None

    with pytest.raises(InvalidInputError, match="extra"):
        register(Scan)


# -- in a notebook


def test_a_definition_may_be_run_again(types: PayloadRegistry, client: Client) -> None:
    def run_cell() -> type[Payload]:
        class Part(BaseModel):
            name: str | None = None

        @register
        class Scan(Payload, type="scan", namespace="scans", parents=("patient",)):
            parts: list[Part] | None = Field(None, description="Parts.")

        return Scan

    client.namespace(run_cell()).create(a_scan(parts=[{"name": "arm"}]))
    newest = run_cell()
    assert types.of_type("scan") is newest
    assert client.namespace(newest).retrieve("scan/1").payload == newest.model_validate({"parts": [{"name": "arm"}]})
    assert client.scans.update("scan/1", {"parts": []}).payload.model_dump() == {"parts": []}


def test_a_payload_of_a_definition_that_was_run_again_is_refused_with_words(types: PayloadRegistry) -> None:
    old = register(make())
    register(make())
    with pytest.raises(ValidationError, match="Scan"):
        Resource(identifier="scan/1", payload=old())


def test_another_definition_of_a_registered_type_is_refused(types: PayloadRegistry) -> None:
    first = register(make({"body": None}))
    with pytest.raises(InvalidInputError, match="'scan' is taken"):
        register(type("Other", (make({"body": None}),), {"__module__": "elsewhere"}))
    assert types.of_type("scan") is first


def test_a_definition_that_was_changed_in_a_notebook_says_to_restart_it(types: PayloadRegistry) -> None:
    first = register(make({"body": None}))
    with pytest.raises(InvalidInputError, match=r"was registered before with another definition; restart Python"):
        register(make({"body": None, "side": None}))
    assert types.of_type("scan") is first


# -- as an installed package


def test_the_plugin_is_installed_as_an_entry_point() -> None:
    assert "vxdata_test_plugin:Biopsy" in {entry.value for entry in entry_points(group=ENTRY_POINT_GROUP)}
    assert registry().of_namespace("biopsies") is Biopsy


def test_a_plugin_type_works_like_any_other(lake_uri: str) -> None:
    client = Client(lake_uri)
    resource = Resource(identifier="biopsy/1", parent_identifier="patient/1", payload=BIOPSY)
    client.resources.create([resource, *PARENTS])
    assert client.biopsies.retrieve("biopsy/1").payload == BIOPSY
    typed = client.namespace(Biopsy)
    assert typed.query().filter(F.technique == "transperineal").collect_as_pydantic()[0].payload == BIOPSY
    frame = typed.query().collect()
    assert typed.upsert(frame).unchanged == 1
    assert typed.upsert(frame.with_columns(prostate_volume=pl.lit(Decimal("50.25")))).updated == 1
    assert typed.retrieve("biopsy/1").payload == BIOPSY.model_copy(update={"prostate_volume": Decimal("50.25")})
    assert [
        found.payload for found in client.as_of(typed.history("biopsy/1")[0].valid_from).biopsies.history("biopsy/1")
    ] == [BIOPSY]


def test_a_response_of_a_plugin_type_is_typed() -> None:
    cls = response_class(Biopsy)
    assert cls.__name__ == "BiopsyResponse"
    assert cls.model_fields["payload"].annotation is Biopsy


@pytest.mark.parametrize(
    "resource",
    [{"technique": "by hand"}, {"prostate_volume": "41.505"}, {"cores": [{"gleason": 7}]}, {"taken_on": "29.2.24"}],
)
def test_a_plugin_payload_is_validated(resource: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(resource))):
        Resource(identifier="biopsy/1", parent_identifier="patient/1", payload=resource)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package with a module and entry points of the group, for this test alone."""

    def install(code: str, entries: dict[str, str]) -> None:
        (tmp_path / "team_types.py").write_text(textwrap.dedent(code))
        info = tmp_path / "team_types-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: team-types\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{ENTRY_POINT_GROUP}]", *lines]))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "team_types", raising=False)

    return install


TEAM_TYPES = """
    from vxdata.schemas import Payload
    class Parent(Payload, type="slide", namespace="slides", parents=("patient",)): pass
    class Child(Payload, type="cell", namespace="cells", parents=("slide",)): pass
    NUMBER = 3
"""


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_entry_points_may_come_in_any_order(install: Install, names: tuple[str, str]) -> None:
    install(TEAM_TYPES, dict(zip(names, ("team_types:Parent", "team_types:Child"), strict=True)))
    found = registry.__wrapped__().namespaces()
    assert found.index("patients") < found.index("slides") < found.index("cells")


@pytest.mark.parametrize("value", ["team_types:NUMBER", "team_types:Nothing", "no_such_module:Parent"])
def test_an_entry_point_that_is_no_payload_type_is_named(install: Install, value: str) -> None:
    install(TEAM_TYPES, {"broken": value})
    with pytest.raises(InvalidInputError, match=value):
        registry.__wrapped__()


class Constrained(Payload, type="scan", namespace="scans", parents=("patient",)):
    body: Literal["arm", "leg"] | None = None
    dose: float | None = Field(None, ge=0)
    code: str | None = Field(None, max_length=3)


@pytest.mark.parametrize("column", [{"body": "tail"}, {"dose": -1.0}, {"code": "long"}, {}])
def test_what_a_frame_writes_can_be_read_back(types: PayloadRegistry, client: Client, column: dict[str, Any]) -> None:
    register(Constrained)
    frame = pl.DataFrame([{"identifier": "scan/1", "parent_identifier": "patient/1", **column}])
    report = client.scans.upsert(frame, on_invalid="skip")
    assert report.created + report.rejected.height == 1
    assert len(client.scans.query().collect_as_pydantic()) == report.created
