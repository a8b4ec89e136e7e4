"""The SQL views of docs/sql.md answer as the SDK does."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.test_readme import blocks
from vxdata.sdk import Client, F

COLUMNS = ["identifier", "valid_from", "valid_to", "volume_type"]


@pytest.fixture
def client(tmp_path: Path) -> Client:
    client = Client(tmp_path / "lake")
    client.datasources.upsert(pl.DataFrame({"identifier": ["datasource/a b=c#d%2F"]}))
    client.patients.upsert(frame("patient", "datasource/a b=c#d%2F"))
    client.imaging_studies.upsert(frame("imagingstudy", "patient/0"))
    client.volumes.upsert(frame("volume", "imagingstudy/0").with_columns(volume_type=pl.lit("T2")))
    for kind in ("T1", "ADC"):
        client.volumes.update("volume/1", {"volume_type": kind})
    client.volumes.delete("volume/2")
    client.volumes.upsert(frame("volume", "imagingstudy/0").tail(1).with_columns(volume_type=pl.lit("SEG")))
    return client


def frame(kind: str, parent: str) -> pl.DataFrame:
    return pl.DataFrame({"identifier": [f"{kind}/{n}" for n in range(5)], "parent_identifier": [parent] * 5})


def ask(client: Client, sql: str) -> pl.DataFrame:
    """Run SQL over the views of docs/sql.md, made by the code of docs/sql.md."""
    code = blocks("docs/sql.md", "python")[0].replace('Client("./lake")', "client")
    scope: dict[str, Any] = {"client": client}
    exec(code, scope)
    with scope["connection"] as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for view in blocks("docs/sql.md", "sql"):
            connection.execute(view)
        return pl.DataFrame(connection.sql(sql).to_arrow_table())


def test_the_current_view_is_the_current_state(client: Client) -> None:
    ours = client.volumes.query().collect()
    found = ask(client, "FROM volumes").select(COLUMNS)
    assert sorted(found.rows()) == sorted(ours.select(COLUMNS).rows())


def test_the_versions_view_is_all_versions(client: Client) -> None:
    ours = client.volumes.query().versions().collect()
    found = ask(client, "FROM volumes_versions").select(COLUMNS)
    assert sorted(found.rows(), key=str) == sorted(ours.select(COLUMNS).rows(), key=str)


def test_as_of_follows_from_the_versions_view(client: Client) -> None:
    instant = client.volumes.history("volume/1")[1].valid_from
    ours = client.volumes.query().as_of(instant).filter(F.volume_type == "T1").count()
    seen = f"valid_from <= '{instant.isoformat()}' AND (valid_to IS NULL OR valid_to > '{instant.isoformat()}')"
    assert ask(client, f"FROM volumes_versions WHERE {seen} AND volume_type = 'T1'").height == ours == 1


def test_a_query_as_sql_gives_the_same_answer(client: Client) -> None:
    query = client.volumes.query().filter((F.volume_type != "SEG") | F.volume_type.is_null()).sort("identifier")
    assert ask(client, query.to_sql()).rows() == query.collect().rows()
