"""Looking: get, history, tree, schema and info show what the lake holds, to people and as JSON."""

from __future__ import annotations

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.support.cli import plain, run, run_here, run_on_terminal
from tests.support.small_lake import ADC, DELETED, ODD, T2, fill, volume
from vxdata.catalog.table import table_spec
from vxdata.lake.checkpoint import CHECKPOINT_COMMITS
from vxdata.lake.scd2 import closings_of, versions
from vxdata.schemas import Resource
from vxdata.schemas.payload import VolumePayload
from vxdata.sdk import Client
from vxdata.sdk.changes import events_in
from vxdata.sdk.info import TableInfo, upkeep_wanted

VOLUMES = table_spec(VolumePayload)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    return fill(str(tmp_path_factory.mktemp("lakes") / "small"))


@pytest.fixture(autouse=True)
def uri(monkeypatch: pytest.MonkeyPatch, client: Client) -> str:
    monkeypatch.setenv("VXDATA_URI", client.uri)
    return client.uri


@pytest.fixture
def copy(client: Client, tmp_path: Path) -> Client:
    """A lake of the test's own, with the same content."""
    return Client(shutil.copytree(client.uri, tmp_path / "lake"), author="bob")


def document(*args: str | Path) -> Any:
    done = run_here(*args, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


# ---- get


def test_get_gives_the_response(client: Client) -> None:
    found = document("get", ODD)
    response = client.volumes.retrieve(ODD)
    assert found["payload"] == response.payload.model_dump()
    assert found["ancestors"] == list(response.ancestors)
    assert found["valid_from"] == response.valid_from.isoformat()
    assert set(found) == set(type(response).model_fields)


def test_get_gives_several_in_the_order_asked_for() -> None:
    assert [one["identifier"] for one in document("get", T2, "patient/DA1", ADC)] == [T2, "patient/DA1", ADC]


def test_get_shows_each_field_that_is_there_on_a_line(client: Client) -> None:
    lines = run_here("get", T2).stdout.splitlines()
    shown = dict(re.split(r"  +", line, maxsplit=1) for line in lines)
    assert (shown["volume_type"], shown["slice_thickness (mm)"]) == ("T2", "3.6")
    assert "modality" in shown["null"].split(", ")
    assert f'series_description  {"=SUM(A1)"}\\n\\x1b[31m"é' in run_here("get", ODD).stdout
    assert "\x1b" not in run_here("get", ODD).stdout


def test_get_looks_into_the_past(client: Client) -> None:
    first = client.volumes.history(T2)[0]
    assert document("get", T2, "--as-of", first.valid_from.isoformat())["payload"]["slice_thickness"] == 3.0


def test_get_names_all_that_is_missing() -> None:
    done = run_here("get", T2, DELETED, "patient/DA9")
    assert (done.returncode, done.stdout) == (3, "")
    assert f"'{DELETED}' was deleted at" in done.stderr
    assert "'patient/DA9' does not exist" in done.stderr


# ---- history


def test_history_tells_what_when_who_and_why(client: Client) -> None:
    found = document("history", T2)
    first, second = client.volumes.history(T2)
    told = [
        (c["valid_from"], c["operation"], c["field"], c["before"], c["after"], c["author"], c["reason"])
        for c in found["changes"]
    ]
    created, updated = first.valid_from.isoformat(), second.valid_from.isoformat()
    assert told == [
        (created, "created", "parent_identifier", None, "imagingstudy/DA1/s", "ann", "first load"),
        (created, "created", "license", None, "CC0", "ann", "first load"),
        (created, "created", "volume_type", None, "T2", "ann", "first load"),
        (created, "created", "slice_thickness", None, "3.0", "ann", "first load"),
        (created, "created", "b_value", None, "0.5", "ann", "first load"),
        (created, "created", "modality", None, "MR", "ann", "first load"),
        (updated, "updated", "slice_thickness", "3.0", "3.6", "ann", "header was wrong"),
        (updated, "updated", "modality", "MR", None, "ann", "header was wrong"),
    ]


def test_history_shows_a_delete_and_a_second_life(copy: Client) -> None:
    copy.resources.create(volume(DELETED, {"volume_type": "SEG"}), reason="consent given again")
    changes = copy.resources.changes(DELETED)
    steps = changes.unique("valid_from", keep="first", maintain_order=True)
    assert steps["operation"].to_list() == ["created", "deleted", "created"]
    assert steps["author"].to_list() == ["ann", "ann", "bob"]
    assert steps["reason"].to_list() == ["first load", "consent withdrawn", "consent given again"]
    assert steps["valid_to"].to_list() == [*steps["valid_from"][1:], None]


HISTORY = """{created} UTC  created by ann: first load
    parent_identifier  imagingstudy/DA2/s
    license            CC0
    volume_type        SEG
    slice_thickness    1.25

{deleted} UTC  deleted by ann: consent withdrawn
"""


def test_history_is_told_to_people(client: Client) -> None:
    code, written = run_on_terminal("history", DELETED)
    (only,) = client.volumes.history(DELETED)
    instants = {"created": only.valid_from, "deleted": only.valid_to}
    assert code == 0
    assert plain(written) == HISTORY.format(**{k: f"{v:%Y-%m-%d %H:%M:%S.%f}" for k, v in instants.items()})


def folded(rows: pl.DataFrame) -> pl.DataFrame:
    """What compaction makes of physical rows: ends and `closed_by` in the rows, `closes` null, no tombstones."""
    closers = rows.filter(pl.col("closes").is_not_null()).select("identifier", "closes", closer="commit_id")
    ended = versions(rows.lazy(), closings_of(rows.lazy())).collect()
    joined = ended.join(closers, left_on=["identifier", "valid_from"], right_on=["identifier", "closes"], how="left")
    return joined.with_columns(closes=pl.lit(None, rows.schema["closes"]), closed_by="closer").drop("closer")


def test_a_folded_past_tells_the_same(copy: Client) -> None:
    copy.resources.create(volume(DELETED, {"volume_type": "SEG"}))
    copy.volumes.update(DELETED, {"modality": "SEG"})
    copy.volumes.delete(DELETED)
    rows = copy._session.view.snapshot(VOLUMES).history_of([DELETED])
    assert rows["is_deleted"].sum() == 2
    assert len(events_in(rows, VOLUMES)) == 5
    assert events_in(folded(rows), VOLUMES) == events_in(rows, VOLUMES)


def test_a_past_that_was_compacted_tells_the_same_with_who_and_why(copy: Client) -> None:
    copy.resources.create(volume(DELETED, {"volume_type": "SEG"}), reason="consent given again")
    copy.volumes.update(DELETED, {"modality": "SEG"}, reason="modality was missing")
    copy.volumes.delete(DELETED, reason="withdrawn for good")
    before = copy.resources.changes(DELETED)
    assert copy.compact("volumes").is_changed
    assert copy._session.view.snapshot(VOLUMES).closing_files.is_empty()
    folded = Client(copy.uri).resources.changes(DELETED)
    assert folded.equals(before)
    deletes = folded.filter(pl.col("operation") == "deleted")
    assert deletes.select("author", "reason").rows() == [("ann", "consent withdrawn"), ("bob", "withdrawn for good")]
    assert document("history", DELETED, "--uri", copy.uri)["changes"][-1]["reason"] == "withdrawn for good"


def test_authors_and_reasons_are_found_in_the_archive_too(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake", author="ann")
    client.resources.create(Resource(identifier="datasource/a"), reason="r0")
    for n in range(1, CHECKPOINT_COMMITS + 3):
        client.datasources.update("datasource/a", {"name": str(n)}, reason=f"r{n}")
    expected = [f"r{n}" for n in range(CHECKPOINT_COMMITS + 3)]
    assert client.resources.changes("datasource/a")["reason"].to_list() == expected
    for version in range(CHECKPOINT_COMMITS - 2):  # as trimming does
        (tmp_path / "lake" / "datasources" / "_delta_log" / f"{version:020}.json").unlink()
    assert Client(tmp_path / "lake").resources.changes("datasource/a")["reason"].to_list() == expected


def test_history_as_of_knows_no_later_change(client: Client) -> None:
    first = client.volumes.history(T2)[0]
    found = document("history", T2, "--as-of", first.valid_from.isoformat())["changes"]
    assert {change["operation"] for change in found} == {"created"}
    assert {change["valid_to"] for change in found} == {None}


@pytest.mark.parametrize("command", ["history", "tree", "get"])
@pytest.mark.parametrize(
    ("identifier", "code", "words"),
    [("patient/DA9", 3, "'patient/DA9' does not exist"), ("patiennt/DA1", 2, "'patient'"), ("DA1", 2, "no identifier")],
)
def test_an_identifier_that_is_none_is_named(command: str, identifier: str, code: int, words: str) -> None:
    done = run_here(command, identifier)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr


# ---- tree

TREE = """datasource/dasa  (patients 2, imaging_studies 2, volumes 3)
├── patient/DA1  (imaging_studies 1, volumes 3)
│   └── imagingstudy/DA1/s  (volumes 3)
│       ├── volume/DA1/s/a b=c#d
│       ├── volume/DA1/s/adc
│       └── and 1 more
└── patient/DA2  (imaging_studies 1)
    └── imagingstudy/DA2/s
"""


def test_tree_draws_what_lies_below() -> None:
    code, written = run_on_terminal("tree", "datasource/dasa", "--depth", "9", "--limit", "2")
    assert (code, plain(written)) == (0, TREE)


def test_tree_as_json_nests_and_counts() -> None:
    found = document("tree", "datasource/dasa", "--depth", "1", "--limit", "1")
    assert found["descendants"] == {"patient": 2, "imagingstudy": 2, "volume": 3}
    assert found["children_not_listed"] == 1
    (child,) = found["children"]
    assert (child["identifier"], child["descendants"]) == ("patient/DA1", {"imagingstudy": 1, "volume": 3})
    assert child["children"] == []


def test_tree_goes_through_a_type_that_lies_below_itself(copy: Client) -> None:
    chain = ["patient/DA1", *(f"pathologyspecimen/{n}" for n in range(4))]
    copy.resources.create([Resource(identifier=c, parent_identifier=p) for p, c in pairwise(chain)])
    found = copy.resources.tree("pathologyspecimen/0", depth=2)
    assert found.nodes["identifier"].to_list() == chain[2:4]
    assert found.nodes["depth"].to_list() == [1, 2]
    assert dict(found.counts.select("identifier", "descendants").iter_rows()) == dict(
        zip(chain[1:4], [3, 2, 1], strict=True)
    )


def test_tree_of_the_past_holds_what_was_deleted_since(client: Client) -> None:
    first = client.volumes.history(DELETED)[0]
    past = document("tree", "patient/DA2", "--depth", "2", "--as-of", first.valid_from.isoformat())
    assert past["descendants"] == {"imagingstudy": 1, "volume": 1}
    assert document("tree", "patient/DA2")["descendants"] == {"imagingstudy": 1}


# ---- schema


def test_schema_lists_the_types_with_their_parents() -> None:
    types = {row["namespace"]: row for row in document("schema")["types"]}
    assert types["volumes"]["type"] == "volume"
    assert types["pathology_specimens"]["parents"] == ["patient", "pathologyspecimen"]
    assert "volumes: volume/..., below imagingstudy\n    One image series" in run_here("schema").stdout


def test_schema_counts_nulls_of_current_resources_alone(client: Client) -> None:
    fields = {row["field"]: row for row in document("schema", "volume")["fields"]}
    current = client.volumes.query().collect()
    assert {name: row["nulls"] for name, row in fields.items()} == current.null_count().row(0, named=True)
    assert {row["rows"] for row in fields.values()} == {current.height}
    assert (fields["slice_thickness"]["unit"], fields["slice_thickness"]["type"]) == ("mm", "float")
    assert fields["derived_from"]["type"] == "list of text"


def test_schema_counts_by_statistics_what_a_scan_counts(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = client.imaging_studies.query().collect()
    from vxdata.sdk import fields

    monkeypatch.delattr(fields, "plan_select")  # nothing is scanned
    found = client.imaging_studies.fields()
    assert dict(found.select("field", "nulls").iter_rows()) == studies.null_count().row(0, named=True)
    assert found["rows"].unique().to_list() == [2]


def test_every_field_is_described() -> None:
    for row in document("schema")["types"]:
        assert [f["field"] for f in document("schema", row["type"])["fields"] if not f["description"]] == []


def test_schema_needs_no_lake(tmp_path: Path) -> None:
    done = run_here("schema", "volumes", "--uri", tmp_path / "nothing")
    assert done.returncode == 0
    assert done.stdout.startswith("volumes (volume): no lake here")
    assert "slice_thickness: float in mm\n    Nominal slice thickness" in done.stdout
    assert not (tmp_path / "nothing").exists()


def test_schema_names_the_nearest_type() -> None:
    done = run_here("schema", "volums")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'volumes'" in done.stderr


@pytest.mark.parametrize(
    ("nulls", "rows", "words"),
    [
        (0, 9, "never null"),
        (9, 9, "always null"),
        (1, 10**6, "0.1 % null"),
        (10**6 - 1, 10**6, "99.9 % null"),
        (None, None, ""),
    ],
)
def test_a_share_is_never_rounded_to_none_or_all(nulls: int | None, rows: int | None, words: str) -> None:
    from vxdata_cli.look import _share

    assert _share(nulls, rows) == words


# ---- info


def test_info_counts_what_a_scan_counts(client: Client) -> None:
    found = document("info")
    tables = {table["namespace"]: table for table in found["tables"]}
    assert list(tables) == ["datasources", "patients", "imaging_studies", "volumes"]
    for name, table in tables.items():
        namespace = getattr(client, name)
        assert table["resources"] == namespace.query().count()
        assert table["versions"] == namespace.query().versions().count()
        assert (table["files"], table["bytes"]) == (namespace.files().height, namespace.files()["bytes"].sum())
    assert tables["volumes"]["rows"] == 6
    assert tables["volumes"]["tail_files"] == 2
    assert (found["uri"], found["datasources"]) == (client.uri, ["datasource/dasa"])


def test_info_counts_commits_since_the_checkpoint(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake")
    for n in range(CHECKPOINT_COMMITS + 4):
        client.datasources.upsert(pl.DataFrame({"identifier": ["datasource/a"], "name": [str(n)]}))
    (table,) = client.info().tables
    hint = json.loads((tmp_path / "lake" / "datasources" / "_delta_log" / "_last_checkpoint").read_text())
    assert table.commits_since_checkpoint == table.version - hint["version"]
    assert 0 < table.commits_since_checkpoint < CHECKPOINT_COMMITS


def test_info_says_what_wants_upkeep() -> None:
    quiet = TableInfo(
        "volumes",
        9,
        1,
        1,
        1,
        files=10,
        bytes=1,
        tail_files=0,
        datasources=1,
        partitions_to_fold=0,
        commits_since_checkpoint=0,
    )
    values = {name: getattr(quiet, name) for name in quiet.__dataclass_fields__}
    assert upkeep_wanted(quiet) == ()
    assert upkeep_wanted(TableInfo(**values | {"partitions_to_fold": 1})) == ("compaction",)
    assert upkeep_wanted(TableInfo(**values | {"commits_since_checkpoint": 99})) == ("checkpoint",)


def test_info_fits_a_terminal(client: Client) -> None:
    code, written = run_on_terminal("info")
    lines = plain(written).splitlines()
    assert code == 0
    lines = lines[lines.index("") - 1 :]  # a long address takes two lines
    assert lines[2].split() == ["table", "resources", "versions", "files", "tail", "size", "log"]
    assert lines[7].split()[:5] == ["volumes", "3", "5", "3", "2"]
    assert max(map(len, lines[2:])) <= 80
    assert lines[-1] == "volumes wants compaction."


def test_info_is_of_now_and_needs_a_lake(client: Client, tmp_path: Path) -> None:
    from vxdata.errors import InvalidInputError

    with pytest.raises(InvalidInputError, match="files, not of an instant"):
        client.as_of("2999-01-01").info()
    done = run_here("info", "--uri", tmp_path / "nothing")
    assert (done.returncode, done.stdout) == (3, "")


# ---- S3


def test_each_command_works_on_each_store(lake_uri: str) -> None:
    fill(lake_uri)
    where = ("--uri", lake_uri)
    assert re.search(r"^volume_type +T2$", run("get", T2, *where).stdout, re.M)
    assert document("history", DELETED, *where)["changes"][-1]["reason"] == "consent withdrawn"
    assert run_here("tree", "datasource/dasa", "--depth", "9", "--limit", "2", *where).stdout == TREE
    assert document("schema", "volumes", *where)["fields"][0]["rows"] == 3
    assert document("info", *where)["tables"][-1]["resources"] == 3
