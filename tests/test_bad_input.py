"""Bad input and bad places: each is an error of ours that names the value and the remedy, and nothing is written."""

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import pytest

from tests.support.servers import ROOT, Server, aws_environment, make_bucket, start_careless
from vxdata.errors import InvalidInputError, NotFoundError, StorageError, VxDataError
from vxdata.schemas import Resource
from vxdata.sdk import Client, F
from vxdata.sdk.files import ingest_files
from vxdata.sdk.ingest import ingest

FAMILY = [
    Resource(identifier="patient/1", parent_identifier="datasource/a", payload={"sex": "M"}),
    Resource(identifier="datasource/a"),
]
NOTHING = pl.DataFrame({"identifier": []}, schema={"identifier": pl.String})
OF_ANOTHER_LIBRARY = type("DataFrame", (), {"__module__": "pandas.core.frame"})()
Use = Callable[[Client], Any]
READS: dict[str, Use] = {
    "query": lambda client: client.patients.query().collect(),
    "count": lambda client: client.patients.query().count(),
    "retrieve": lambda client: client.patients.retrieve("patient/1"),
    "history": lambda client: client.patients.history("patient/1"),
    "snapshot": lambda client: client.snapshot(),
}
WRITES: dict[str, Use] = {
    "create": lambda client: client.resources.create(FAMILY),
    "update": lambda client: client.patients.update("patient/1", {"sex": "F"}),
    "delete": lambda client: client.patients.delete("patient/1"),
    "upsert": lambda client: client.patients.upsert(pl.DataFrame({"identifier": ["patient/1"], "sex": ["F"]})),
    "first upsert": lambda client: client.datasources.upsert(pl.DataFrame({"identifier": ["datasource/1"]})),
}
USES = READS | WRITES


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a lake that holds a patient; the tests get copies."""
    client = Client(tmp_path_factory.mktemp("template") / "lake")
    client.resources.create(FAMILY)
    return Path(client.uri)


@pytest.fixture
def client(template: Path, tmp_path: Path) -> Client:
    return Client(shutil.copytree(template, tmp_path / "lake"))


def content_of(root: str | Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes."""
    return {str(path.relative_to(root)): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


# -- wrong values


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda c: c.patients.retrieve("patient"), ["'patient'", "<type>/<segment>"]),
        (lambda c: c.patients.retrieve("patient/ 1"), ["'patient/ 1'", "blank"]),
        (lambda c: c.resources.retrieve("patiant/1"), ["'patiant'", "'patient'"]),
        (lambda c: c.resources.history("patiant/1"), ["'patiant'", "'patient'"]),
        (lambda c: c.volumes.delete("patient/1"), ["'patient/1'", "client.patients"]),
        (lambda c: c.patients.update("patient/1", {"birthyer": 1}), ["'birthyer'", "'birthyear'"]),
        (lambda c: c.patients.update("patient/1", {"birthyear": "x"}), ["birthyear", "'x'", "integer"]),
        (lambda c: c.patients.query().filter(F.birthyer == 1), ["'birthyer'", "'birthyear'"]),
        (lambda c: c.patients.query().filter(F.birthyear == "x"), ["birthyear", "'x'", "int"]),
        (lambda c: c.patients.query().select("birthyer"), ["'birthyer'", "'birthyear'"]),
        (lambda c: c.patients.upsert(pl.DataFrame({"identifier": ["x"]})), ["'x'", "<type>/<segment>"]),
        (lambda c: c.patients.upsert(pl.DataFrame({"id": ["x"]})), ["'id'"]),
        (lambda c: c.as_of("tomorrow"), ["'tomorrow'", "ISO"]),
        (lambda c: c.resolve("nonsense"), ["'nonsense'", "token"]),
        (lambda c: Client(c.uri, snapshot="nonsense"), ["'nonsense'", "token"]),
        (lambda c: c.namespace("volumes"), ["'volumes'", "payload class", "client.volumes"]),
        (lambda c: c.namespace(3), ["3", "payload class"]),
        (lambda c: c.patients.update("patient/1", {"birthyear": 2**63}), ["birthyear", "9223372036854775808", "Int64"]),
        (lambda c: c.patients.update("patient/1", {"birthyear": 10**999}), ["birthyear", "3,319 bits"]),
        (lambda c: c.volumes.update("volume/1", {"b_value": 10**999}), ["b_value", "number"]),
        (lambda c: c.patients.upsert({"identifier": ["patient/1"]}), ["Polars DataFrame", "dict"]),
        (lambda c: c.patients.upsert(NOTHING.with_columns(birthyear=pl.Series([1950.0])[:0])), ["cast(pl.Int64)"]),
        (lambda c: c.patients.update("patient/1", {"parent_identifier": "datasource/b"}), ["never changes"]),
        (lambda c: F[3], ["3 is no field", "the name of one"]),
        (lambda c: c.patients.upsert(OF_ANOTHER_LIBRARY), ["pl.from_pandas(frame)", "DataFrame"]),
        (lambda c: ingest(c, {"patients": OF_ANOTHER_LIBRARY}), ["pl.from_pandas(frame)"]),
        (lambda c: c.patients.upsert(NOTHING, cascade=True), ["cascade=True", "missing='delete'"]),
        (lambda c: c.patients.upsert(NOTHING, datasources=["datasource/a"]), ["datasource/a", "missing='delete'"]),
        (lambda c: ingest(c, {"patients": NOTHING}, cascade=True), ["cascade=True", "missing='delete'"]),
        (lambda c: ingest_files(c, [], cascade=True), ["cascade=True", "missing='delete'"]),
        (lambda c: ingest_files(c, [], missing="drop"), ["'drop'", "'keep' or 'delete'"]),
        (lambda c: Client(c.uri, author=3), ["author=3"]),
        (lambda c: Client(c.uri, author=""), ["author=''"]),
        (lambda c: Client(c.uri, author=" "), ["author=' '"]),
        (lambda c: ingest(c, [NOTHING]), ["'patients'", "mapping", "list"]),
        (lambda c: ingest(c, {"patients": [NOTHING]}), ["patients", "Polars DataFrame", "list"]),
        (lambda c: ingest(c, {3: NOTHING}), ["unknown namespace 3"]),
        (lambda c: ingest_files(c, 3), ["3", "path"]),
        (lambda c: ingest_files(c, [None]), ["None", "path"]),
    ],
)
def test_a_wrong_value_is_named_with_what_is_expected(client: Client, use: Use, words: list[str]) -> None:
    before = content_of(client.uri)
    with pytest.raises(InvalidInputError) as raised:
        use(client)
    assert all(word in str(raised.value) for word in words), str(raised.value)
    assert content_of(client.uri) == before


@pytest.mark.parametrize(
    "use",
    [
        lambda c: c.patients.upsert(NOTHING, missing="delete", datasources=["datasource/aa"]),
        lambda c: ingest(c, {"patients": NOTHING}, missing="delete", datasources=["datasource/aa"]),
        lambda c: ingest(c, {"patients": NOTHING}, missing="delete", datasources=["datasource/aa"], dry_run=True),
        lambda c: c.compact("patients", datasources=["datasource/aa"]),
        lambda c: c.compact(datasources=["datasource/a", "datasource/aa"]),
    ],
)
def test_a_datasource_that_there_is_not_is_named_with_the_nearest(client: Client, use: Use) -> None:
    before = content_of(client.uri)
    with pytest.raises(NotFoundError, match=r"no 'datasource/aa'\. Did you mean 'datasource/a'"):
        use(client)
    assert content_of(client.uri) == before


def test_a_datasource_without_resources_of_a_type_may_be_named(client: Client) -> None:
    client.datasources.create(Resource(identifier="datasource/empty"))
    named: dict[str, Any] = {"missing": "delete", "datasources": ["datasource/empty"]}
    assert client.patients.upsert(NOTHING, **named).deleted == 0
    new = pl.DataFrame({"identifier": ["datasource/new"]})
    report = ingest(client, {"datasources": new, "patients": NOTHING}, missing="delete", datasources=["datasource/new"])
    assert report["datasources"].created == 1
    client.datasources.delete("datasource/empty")
    assert client.patients.upsert(NOTHING, **named).deleted == 0
    client.compact(datasources=["datasource/empty"])


FLAGS: dict[str, Use] = {
    "delete": lambda c: c.resources.delete("datasource/a", cascade="no"),
    "delete, None": lambda c: c.patients.delete("patient/1", cascade=None),
    "upsert": lambda c: c.patients.upsert(NOTHING, missing="delete", datasources=["datasource/a"], cascade="no"),
    "ingest cascade": lambda c: ingest(c, {"patients": NOTHING}, cascade="no"),
    "ingest dry_run": lambda c: ingest(c, {"datasources": pl.DataFrame({"identifier": ["datasource/b"]})}, dry_run=0),
    "ingest_files cascade": lambda c: ingest_files(c, [], cascade=1),
    "ingest_files dry_run": lambda c: ingest_files(c, [], dry_run=None),
    "ingest_files decimal_comma": lambda c: ingest_files(c, [], decimal_comma="no"),
    "revert": lambda c: c.commits.revert(c.commits.list()["commit_id"][0], dry_run=None),
    "restore": lambda c: c.resources.restore("patient/1", dry_run=None),
    "vacuum": lambda c: c.vacuum(dry_run=None),
    "erase": lambda c: c.erase("patient/1", reason="consent withdrawn", dry_run=None),
}


@pytest.mark.parametrize("use", FLAGS.values(), ids=FLAGS.keys())
def test_a_flag_is_true_or_false_and_nothing_that_passes_for_it(client: Client, use: Use) -> None:
    before = content_of(client.uri)
    with pytest.raises(InvalidInputError, match=r"(cascade|dry_run|decimal_comma)=.*: True or False is expected"):
        use(client)
    assert content_of(client.uri) == before


@pytest.mark.parametrize(
    ("identifier", "parent", "error", "words"),
    [
        ("patient/2", "datasource/none", NotFoundError, ["datasource/none", "does not exist", "Create them first"]),
        ("patient/2", "patient/1", InvalidInputError, ["'patient/1'", "'patient'", "'datasource'"]),
        ("patient/2", None, InvalidInputError, ["'patient/2'", "parent_identifier"]),
        ("datasource/b", "datasource/a", InvalidInputError, ["'datasource/b'", "none"]),
    ],
)
def test_a_wrong_parent_is_named_with_what_is_expected(
    client: Client, identifier: str, parent: str | None, error: type[VxDataError], words: list[str]
) -> None:
    before = content_of(client.uri)
    with pytest.raises(error) as raised:
        client.resources.create(Resource(identifier=identifier, parent_identifier=parent))
    assert all(word in str(raised.value) for word in words), str(raised.value)
    assert content_of(client.uri) == before


def test_a_message_never_quotes_stored_values(client: Client) -> None:
    client.patients.update("patient/1", {"sex": "SECRET-DIAGNOSIS"})
    for use in (
        lambda: client.resources.create(FAMILY[0]),
        lambda: client.patients.update("patient/1", {"birthyear": "x"}),
        lambda: client.patients.update("patient/1", {"sex": "F"}, expected_valid_from="2001-01-01"),
        lambda: client.datasources.delete("datasource/a"),
    ):
        with pytest.raises(VxDataError) as raised:
            use()
        assert "SECRET" not in str(raised.value)


# -- addresses


@pytest.mark.parametrize(
    ("uri", "word"),
    [
        ("gs://bucket/lake", "'gs'"),
        ("https://bucket.s3.amazonaws.com/lake", "'https'"),
        ("S4://bucket", "'S4'"),
        ("s3://", "bucket"),
        ("s3:///lake", "bucket"),
        ("/data/100%/lake", "%"),
        ("s3://bucket/100%25", "%"),
        (7, "7"),
        (b"/data/lake", "str"),
        ({"uri": "x"}, "dict"),
    ],
    ids=str,
)
def test_what_is_no_address_is_refused(uri: Any, word: str) -> None:
    with pytest.raises(InvalidInputError, match=word):
        Client(uri)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"acess_key_id": "x"}, "Did you mean 'access_key_id'"),
        ({"nonsense": "x"}, "'nonsense'"),
        ({"profile": "no-such-profile"}, "no-such-profile"),
    ],
)
def test_a_wrong_storage_option_is_named(options: dict[str, str], word: str) -> None:
    with pytest.raises(VxDataError, match=word):
        Client("s3://bucket/lake", storage_options=options).patients.query().collect()


def test_a_relative_path_a_home_path_and_a_file_address_name_the_same_lake(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    addresses: list[Any] = ["lake", "./lake/", "~/lake", f"file://{tmp_path}/lake", tmp_path / "lake"]
    assert [Client(address).patients.query().count() for address in addresses] == [1] * 5


def test_the_environment_names_the_lake(client: Client, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Client().uri.startswith(str(home))
    monkeypatch.setenv("VXDATA_URI", client.uri)
    assert Client().patients.query().count() == 1


# -- places


@pytest.mark.parametrize("use", READS)
def test_reading_where_no_lake_is_says_so_with_a_hint_and_makes_none(tmp_path: Path, use: str) -> None:
    client = Client(tmp_path / "none")
    with pytest.raises(NotFoundError, match="no lake at") as raised:
        READS[use](client)
    assert client.uri in str(raised.value)
    assert "VXDATA_URI" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_reading_where_no_lake_is_says_so_on_s3(make_lake_uri: Callable[[], str]) -> None:
    uri = make_lake_uri()
    with pytest.raises(NotFoundError, match="no lake at"):
        Client(uri).patients.query().collect()
    with pytest.raises(NotFoundError, match="no lake at"):
        Client(uri).patients.retrieve("patient/1")


@pytest.mark.parametrize("use", ["update", "delete"])
def test_changing_something_where_no_lake_is_makes_none(tmp_path: Path, use: str) -> None:
    with pytest.raises(NotFoundError, match="no lake at"):
        WRITES[use](Client(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resource", [FAMILY[0], Resource(identifier="volume/1")])
def test_a_first_write_that_is_wrong_makes_no_lake(tmp_path: Path, resource: Resource) -> None:
    with pytest.raises(VxDataError):
        Client(tmp_path / "none").resources.create(resource)
    assert not content_of(tmp_path)


@pytest.mark.parametrize("name", ["notes.txt", "a/b/scan.dcm", ".hidden", "patients/_delta_log/0.json"])
@pytest.mark.parametrize("use", ["create", "upsert"])
def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path: Path, name: str, use: str) -> None:
    file = tmp_path / "data" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"mine")
    with pytest.raises(InvalidInputError, match="holds something else") as raised:
        WRITES[use](Client(tmp_path / "data"))
    assert str(tmp_path / "data") in str(raised.value)
    assert content_of(tmp_path / "data") == {name: b"mine"}


def test_a_prefix_that_holds_something_else_is_refused_and_left_alone(
    moto_url: str, use_endpoint: Callable[[str], None]
) -> None:
    use_endpoint(moto_url)
    make_bucket(moto_url, "mixed")
    bucket = boto3.resource("s3").Bucket("mixed")
    bucket.put_object(Key="data/scan.dcm", Body=b"mine")
    with pytest.raises(InvalidInputError, match="holds something else"):
        Client("s3://mixed/data").resources.create(FAMILY)
    assert [entry.key for entry in bucket.objects.all()] == ["data/scan.dcm"]
    assert len(Client("s3://mixed/lake").resources.create(FAMILY)) == 2


@pytest.mark.parametrize("use", USES)
def test_a_file_is_no_lake(tmp_path: Path, use: str) -> None:
    (tmp_path / "lake").write_bytes(b"mine")
    with pytest.raises(InvalidInputError, match="is a file"):
        USES[use](Client(tmp_path / "lake"))
    assert (tmp_path / "lake").read_bytes() == b"mine"


# -- lake.json


def rewrite_format(client: Client, text: str) -> Client:
    """Write another text into `lake.json`; return a fresh client."""
    Path(client.uri, "_vxdata", "lake.json").write_text(text)
    return Client(client.uri)


@pytest.mark.parametrize("use", USES)
def test_a_lake_of_a_newer_format_is_refused(client: Client, use: str) -> None:
    content = json.loads(Path(client.uri, "_vxdata", "lake.json").read_text())
    newer = rewrite_format(client, json.dumps(content | {"format": content["format"] + 1}))
    before = content_of(client.uri)
    with pytest.raises(StorageError, match="pip install --upgrade vxdata") as raised:
        USES[use](newer)
    assert f"format {content['format'] + 1}" in str(raised.value)
    assert not raised.value.retryable
    assert content_of(client.uri) == before


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "7", '"x"', "{}", '{"format": 1}', '{"format": "new", "lake_id": "x"}', "\x00"]
)
@pytest.mark.parametrize("use", ["query", "update", "create"])
def test_a_damaged_format_file_is_named_and_not_overwritten(client: Client, text: str, use: str) -> None:
    damaged = rewrite_format(client, text)
    before = content_of(client.uri)
    with pytest.raises(StorageError, match=r"lake\.json is damaged"):
        USES[use](damaged)
    assert content_of(client.uri) == before


def test_a_format_file_that_is_no_utf8_is_damaged(client: Client) -> None:
    Path(client.uri, "_vxdata", "lake.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StorageError, match=r"lake\.json is damaged"):
        Client(client.uri).patients.query().count()


# -- damage


@pytest.mark.parametrize("use", ["query", "retrieve", "history", "update", "delete", "upsert"])
def test_a_data_file_that_was_removed_by_hand_is_missed(client: Client, use: str) -> None:
    for file in Path(client.uri, "patients").rglob("*.parquet"):
        file.unlink()
    before = content_of(client.uri)
    with pytest.raises(StorageError, match="vxdata verify") as raised:
        USES[use](Client(client.uri))
    assert client.uri in str(raised.value)
    assert content_of(client.uri) == before


@pytest.mark.parametrize("use", ["query", "retrieve", "upsert"])
@pytest.mark.parametrize("size", [0, -8])
def test_a_data_file_that_was_cut_short_is_an_error_of_ours(client: Client, use: str, size: int) -> None:
    for file in Path(client.uri, "patients").rglob("*.parquet"):
        os.truncate(file, size if size >= 0 else file.stat().st_size + size)
    with pytest.raises(StorageError, match=client.uri):
        USES[use](Client(client.uri))


@pytest.mark.parametrize("text", [b"", b"{", b"not json\n", b"\xff\xfe"])
@pytest.mark.parametrize("use", ["query", "update"])
def test_a_damaged_log_entry_is_an_error_of_ours(client: Client, use: str, text: bytes) -> None:
    [*_, newest] = sorted(Path(client.uri, "patients", "_delta_log").glob("*.json"))
    newest.write_bytes(text)
    before = content_of(client.uri)
    with pytest.raises(StorageError, match="patients"):
        USES[use](Client(client.uri))
    assert content_of(client.uri) == before


def test_a_table_that_has_no_rows_yet_answers_like_any_other(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vxdata.lake.commit.write_data_files", fail_with(OSError(errno.ENOSPC, "No space left")))
    volume = Resource(identifier="psameasurement/1", parent_identifier="patient/1", payload={"value": 1})
    with pytest.raises((VxDataError, OSError)):
        client.psa_measurements.create(volume)
    monkeypatch.undo()
    assert Path(client.uri, "psa_measurements").is_dir()
    for reader in (client, Client(client.uri)):
        assert reader.psa_measurements.query().filter(F.value > 0, F.value.is_not_null()).count() == 0
        assert reader.psa_measurements.query().versions().collect().height == 0
        assert reader.as_of(datetime.now(UTC)).psa_measurements.query().count() == 0
    assert client.psa_measurements.create(volume).payload.value == 1


def fail_with(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


# -- a full disk


@pytest.mark.parametrize("use", WRITES)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT], ids=["full", "quota"])
def test_a_full_disk_fails_the_write_and_leaves_nothing_behind(
    client: Client, monkeypatch: pytest.MonkeyPatch, use: str, number: int
) -> None:
    if use == "create":
        client.datasources.delete("datasource/a", cascade=True)
    before = content_of(client.uri)
    monkeypatch.setattr(os, "fsync", fail_with(OSError(number, os.strerror(number))))
    with pytest.raises(StorageError, match=r"disk is full|quota") as raised:
        WRITES[use](client)
    assert not raised.value.retryable
    monkeypatch.undo()
    assert content_of(client.uri) == before
    WRITES[use](client)


def test_a_first_write_on_a_full_disk_makes_no_lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail_with(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(StorageError, match="disk is full"):
        Client(tmp_path / "lake").resources.create(FAMILY)
    monkeypatch.undo()
    assert not content_of(tmp_path)
    assert len(Client(tmp_path / "lake").resources.create(FAMILY)) == 2


LIMITED = """
    import resource, sys
    import polars as pl
    from vxdata.errors import StorageError
    from vxdata.sdk import Client
    client = Client(sys.argv[1])
    client.patients.query().count()
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    names = [f"patient/{n}" for n in range(3000)]
    frame = pl.DataFrame({"identifier": names, "parent_identifier": ["datasource/a"] * 3000})
    try:
        client.patients.upsert(frame)
    except StorageError as error:
        print(error.retryable)
"""


@pytest.mark.parametrize("limit", [500, 4_000])
def test_a_write_that_the_system_cuts_off_leaves_nothing_visible(client: Client, limit: int) -> None:
    command = [sys.executable, "-c", textwrap.dedent(LIMITED), client.uri, str(limit)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr
    assert Client(client.uri).patients.query().count() == 1
    assert client.patients.update("patient/1", {"sex": "F"}).payload.sex == "F"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(client: Client) -> None:
    folder = Path(client.uri, "patients", "_delta_log")
    folder.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="cannot be written"):
            client.patients.update("patient/1", {"sex": "F"})
    finally:
        folder.chmod(0o700)


# -- S3


@pytest.mark.parametrize("use", ["query", "retrieve", "create"])
def test_without_credentials_the_remedy_is_named(use: str) -> None:
    with pytest.raises(StorageError, match="AWS_PROFILE") as raised:
        USES[use](Client("s3://bucket/lake"))
    assert "s3://bucket/lake" in str(raised.value)
    assert not raised.value.retryable


@pytest.mark.parametrize("server", ["moto_url", "ministack_url"])
@pytest.mark.parametrize("use", ["query", "create", "upsert"])
def test_a_missing_bucket_is_named(
    request: pytest.FixtureRequest, use_endpoint: Callable[[str], None], server: str, use: str
) -> None:
    use_endpoint(request.getfixturevalue(server))
    with pytest.raises(StorageError, match="bucket does not exist") as raised:
        USES[use](Client("s3://no-such-bucket/lake"))
    assert "s3://no-such-bucket/lake" in str(raised.value)
    assert not raised.value.retryable


def test_a_store_that_does_not_answer_is_named(use_endpoint: Callable[[str], None]) -> None:
    use_endpoint("http://127.0.0.1:9")
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL"):
        Client("s3://bucket/lake").patients.query().collect()


@pytest.fixture(scope="module")
def careless() -> Iterator[Server]:
    """A store that ignores `If-None-Match`."""
    with start_careless() as server:
        make_bucket(server.endpoint_url, "careless")
        yield server


@pytest.mark.parametrize("use", ["create", "first upsert"])
def test_a_store_without_conditional_writes_is_refused_before_anything_is_written(
    careless: Server, use_endpoint: Callable[[str], None], use: str
) -> None:
    use_endpoint(careless.endpoint_url)
    with pytest.raises(StorageError, match="If-None-Match") as raised:
        WRITES[use](Client("s3://careless/lake"))
    assert not raised.value.retryable
    assert list(boto3.resource("s3").Bucket("careless").objects.all()) == []


def test_a_lake_that_moved_to_a_careless_store_is_refused_at_its_first_write(
    careless: Server, moto_url: str, use_endpoint: Callable[[str], None]
) -> None:
    use_endpoint(moto_url)
    make_bucket(moto_url, "moving")
    Client("s3://moving/lake").resources.create(FAMILY)
    objects = {entry.key: entry.get()["Body"].read() for entry in boto3.resource("s3").Bucket("moving").objects.all()}
    use_endpoint(careless.endpoint_url)
    make_bucket(careless.endpoint_url, "moving")
    for key, data in objects.items():
        boto3.resource("s3").Object("moving", key).put(Body=data)
    client = Client("s3://moving/lake")
    assert client.patients.query().count() == 1
    with pytest.raises(StorageError, match="If-None-Match"):
        client.patients.update("patient/1", {"sex": "F"})
    assert {entry.key for entry in boto3.resource("s3").Bucket("moving").objects.all()} == set(objects)


def test_a_profile_alone_is_enough(moto_url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_bucket(moto_url, "by-profile")
    (home / "aws").mkdir()
    (home / "aws" / "config").write_text(f"[profile lab]\nregion = eu-central-1\nendpoint_url = {moto_url}\n")
    (home / "aws" / "credentials").write_text("[lab]\naws_access_key_id = AKIALAB\naws_secret_access_key = sesame\n")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert not {"AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL", "AWS_REGION"} & set(os.environ)
    client = Client("s3://by-profile/lake")
    client.resources.create(FAMILY)
    client.patients.update("patient/1", {"sex": "F"})
    assert client.patients.upsert(client.patients.query().collect()).unchanged == 1
    assert Client("s3://by-profile/lake").patients.query().filter(F.sex == "F").count() == 1
    assert Client("s3://by-profile/lake", snapshot=client.snapshot().token).patients.query().count() == 1


def test_a_profile_may_be_named_as_an_option(moto_url: str, home: Path) -> None:
    make_bucket(moto_url, "by-option")
    (home / "aws").mkdir()
    (home / "aws" / "config").write_text(f"[profile lab]\nregion = eu-central-1\nendpoint_url = {moto_url}\n")
    (home / "aws" / "credentials").write_text("[lab]\naws_access_key_id = AKIALAB\naws_secret_access_key = sesame\n")
    client = Client("s3://by-option/lake", storage_options={"profile": "lab"})
    client.resources.create(FAMILY)
    assert client.patients.retrieve("patient/1").payload.sex == "M"
    with pytest.raises(StorageError, match="AWS_PROFILE"):
        Client("s3://by-option/lake").patients.query().count()


def test_options_alone_are_enough(moto_url: str) -> None:
    make_bucket(moto_url, "by-options")
    options = {name: value for name, value in aws_environment(moto_url).items() if "EC2" not in name}
    client = Client("s3://by-options/lake", storage_options=options)
    client.resources.create(FAMILY)
    assert client.patients.query().count() == 1
    assert "testing" not in repr(client)
