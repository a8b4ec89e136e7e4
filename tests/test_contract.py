"""The contract: public names, who may import whom, what an import loads, and the tree of errors."""

import ast
import errno
import inspect
import pickle
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import botocore.exceptions
import deltalake.exceptions
import obstore.exceptions
import polars as pl
import pyarrow as pa
import pytest

import vxdata
from vxdata import errors, schemas, sdk
from vxdata.errors import StorageError, VxDataError
from vxdata.lake.faults import to_storage_error, translated
from vxdata.schemas import payload, response
from vxdata.schemas.registry import STANDARD_PAYLOADS
from vxdata.sdk import Client

ROOT = Path(__file__).resolve().parents[1]

# -- public names


def test_the_sdk_exports_what_users_import() -> None:
    assert {"Client", "F", "has_ancestor"} <= set(sdk.__all__) <= set(dir(sdk))


def test_the_schemas_export_what_users_import() -> None:
    assert set(schemas.__all__) == {"Payload", "Resource", "ResourceResponse", "register"}
    assert all(hasattr(payload, cls.__name__) for cls in STANDARD_PAYLOADS)


def test_star_import_of_the_responses_gives_one_for_each_type() -> None:
    names: dict[str, Any] = {}
    exec("from vxdata.schemas.response import *", names)
    expected = {cls.__name__.replace("Payload", "Response") for cls in STANDARD_PAYLOADS} | {"ResourceResponse"}
    assert set(names) - {"__builtins__"} == expected == set(response.__all__)


def test_the_package_says_its_version_and_that_it_is_typed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert vxdata.__version__ == project["version"]
    assert (ROOT / "vxdata" / "py.typed").is_file()
    assert version("vxdata-test-plugin")


VERBS = {"create", "retrieve", "update", "delete", "history", "restore", "changes", "tree"}


def public(thing: Any) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path / "lake")


@pytest.mark.parametrize("cls", STANDARD_PAYLOADS, ids=lambda cls: cls.namespace)
def test_each_namespace_is_an_attribute_with_the_same_verbs(client: Client, cls: type[payload.Payload]) -> None:
    namespace = getattr(client, cls.namespace)
    assert public(namespace) >= VERBS | {"upsert", "query"}
    assert cls.namespace in vars(Client)
    assert getattr(client, cls.namespace) is namespace


def test_resources_has_the_verbs_for_any_type(client: Client) -> None:
    assert public(client.resources) == VERBS


@pytest.mark.parametrize("verb", ["create", "update", "delete", "restore", "upsert"])
def test_every_write_takes_a_reason_and_options_by_name_only(client: Client, verb: str) -> None:
    parameters = inspect.signature(getattr(client.patients, verb)).parameters
    assert parameters["reason"].default is None
    optional = [p for p in parameters.values() if p.default is not p.empty and p.name != "changes"]
    assert {p.kind for p in optional} == {inspect.Parameter.KEYWORD_ONLY}


def test_a_query_has_the_promised_steps(client: Client) -> None:
    steps = {"filter", "sort", "limit", "select", "as_of", "versions"}
    ends = {"collect", "collect_as_pydantic", "lazy", "count", "explain"}
    assert public(client.patients.query()) >= steps | ends
    assert "collect_as_pydantic" not in public(client.patients.query().select("identifier"))


def test_making_a_client_reads_and_writes_nothing(client: Client) -> None:
    assert repr(client) == f"Client({client.uri!r})"
    assert not Path(client.uri).exists()
    assert client.volumes.query() == client.volumes.query()
    assert not Path(client.uri).exists()


# -- who may import whom

ORDER = ["errors", "schemas", "catalog", "expr", "lake", "sdk", "cli"]
RANK = {layer: rank for rank, layer in enumerate(ORDER)} | {
    "storage": ORDER.index("lake"),
    "sources": ORDER.index("lake"),
}
ONLY_IN = {
    "deltalake": {"lake"},
    "boto3": {"lake", "storage"},
    "botocore": {"lake", "storage"},
    "obstore": {"lake", "storage"},
    "typer": {"cli"},
    "rich": {"cli"},
    "click": set(),
    "duckdb": set(),
    "moto": set(),
    "pytest": set(),
    "vxdata_cli": {"cli"},
}
FILES = sorted([*(ROOT / "vxdata").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])


def layer_of(path: Path) -> str:
    """Return the layer that a file belongs to."""
    parts = path.relative_to(ROOT).parts
    return "cli" if parts[0] == "cli" else parts[1].removesuffix(".py")


def imports_of(path: Path) -> Iterator[str]:
    """Return the full names that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_there_are_files_in_every_layer() -> None:
    assert {layer_of(path) for path in FILES} >= {*ORDER, "sources", "__init__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_imports_only_to_its_left(path: Path) -> None:
    own = layer_of(path)
    for name in imports_of(path):
        top, _, rest = name.partition(".")
        assert own in ONLY_IN.get(top, {own}), f"{name} is for {ONLY_IN[top]} only"
        layer = rest.partition(".")[0]
        if top == "vxdata" and layer not in ("__version__", own):
            assert own != "__init__", f"vxdata/__init__.py imports {name}"
            assert RANK[layer] < RANK[own], f"{own} imports {name}"


# -- what an import loads

HEAVY = ["boto3", "botocore", "typer", "deltalake", "pyarrow", "obstore", "rich", "duckdb", "idc_index_data"]


def modules_loaded_by(statement: str) -> set[str]:
    """Return the modules that a statement loads in a fresh process."""
    code = f"import sys; {statement}; print('loaded:', *sys.modules)"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.rpartition("loaded:")[2].split())


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a statement loads in a fresh process."""
    return {name.partition(".")[0] for name in modules_loaded_by(statement)}


@pytest.mark.parametrize(
    "statement",
    [
        "import vxdata.sdk, vxdata.schemas.response",
        "from vxdata.sdk import Client, F; F.volume_type == 'T2'",
        "from vxdata.sdk import Client; Client('s3://bucket/lake')",
    ],
)
def test_an_import_of_the_sdk_loads_nothing_heavy(statement: str) -> None:
    assert not loaded_by(statement) & set(HEAVY)


WRITING = ["commit", "datafile", "frames", "change", "create", "update", "upsert", "delete", "restore", "revert"]
WRITING += ["compact", "vacuum", "verify", "erase", "kept", "archive", "audit", "batch"]


@pytest.fixture(scope="module")
def small_lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("small") / "lake")
    Client(uri).datasources.create(schemas.Resource(identifier="datasource/d"))
    return uri


@pytest.mark.parametrize(
    "read",
    [
        "from vxdata.sdk import Client; Client({uri!r}).resources.retrieve('datasource/d')",
        "from vxdata.sdk import Client, F; Client({uri!r}).datasources.query().filter(F.name == None).collect()",
        "from vxdata_cli.main import app; app(['get', 'datasource/d', '--uri', {uri!r}], standalone_mode=False)",
    ],
    ids=["retrieve", "query", "vxdata get"],
)
def test_a_read_of_a_local_lake_loads_nothing_that_writes_and_no_client_of_a_store(small_lake: str, read: str) -> None:
    loaded = modules_loaded_by(read.format(uri=small_lake))
    heavy = {*HEAVY} - {"deltalake"} - ({"typer"} if "vxdata_cli" in read else set())
    assert "deltalake" in loaded
    assert not {name.partition(".")[0] for name in loaded} & heavy
    assert not loaded & {f"vxdata.lake.{name}" for name in WRITING}


def test_each_module_that_a_read_must_not_load_exists() -> None:
    assert [name for name in WRITING if not (ROOT / "vxdata" / "lake" / f"{name}.py").is_file()] == []


def test_a_response_class_is_made_when_it_is_first_asked_for() -> None:
    count = "print(len(response.ResourceResponse.__subclasses__()))"
    code = f"from vxdata.schemas import response; {count}; response.PatientResponse; {count}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before == 0 < after < 4
    one = response.PatientResponse
    assert (one.__module__, one.__qualname__, pickle.loads(pickle.dumps(one)) is one) == (
        "vxdata.schemas.response", "PatientResponse", True,
    )  # fmt: skip


def test_the_schemas_load_nothing_that_reads_or_writes() -> None:
    assert not loaded_by("import vxdata.schemas, vxdata.schemas.response") & set(HEAVY)


# -- the tree of errors


def test_each_error_is_ours_and_the_builtin_that_callers_expect() -> None:
    assert issubclass(errors.InvalidInputError, ValueError)
    assert issubclass(errors.NotFoundError, KeyError)
    ours = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, Exception)]
    names = (
        "VxDataError InvalidInputError NotFoundError AlreadyExistsError ConflictError CommitUnknownError StorageError"
    )
    assert {cls.__name__ for cls in ours} == set(names.split())
    assert all(issubclass(cls, VxDataError) for cls in ours)


EXAMPLES = [
    errors.InvalidInputError("wrong: 'x'"),
    errors.NotFoundError("not found: 'patient/1'"),
    errors.AlreadyExistsError("'patient/1'"),
    errors.ConflictError("again"),
    errors.CommitUnknownError("who knows", token="vxc1.x"),
    errors.StorageError("full", uri="s3://b/l", operation="write to", retryable=False),
]
each_error = pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)


@each_error
def test_an_error_prints_its_message(error: VxDataError) -> None:
    expected = "write to s3://b/l: full" if isinstance(error, StorageError) else error.args[0]
    assert str(error) == expected
    assert not str(errors.NotFoundError())


@each_error
def test_an_error_crosses_processes(error: VxDataError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_what_a_caller_can_do_stands_in_the_error() -> None:
    assert errors.ConflictError.retryable
    assert errors.CommitUnknownError("?", token="vxc1.x").token == "vxc1.x"
    fault = errors.StorageError("full", uri="s3://b/l", operation="write to", retryable=False)
    assert (fault.uri, fault.operation, fault.retryable) == ("s3://b/l", "write to", False)


# -- errors of lower layers


def aws_error(code: str, status: int = 400) -> botocore.exceptions.ClientError:
    answer: Any = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(answer, "PutObject")


def errors_in(module: Any, base: type[BaseException]) -> list[BaseException]:
    """Return an instance of each exception class of a module."""
    classes = {cls for cls in vars(module).values() if isinstance(cls, type) and issubclass(cls, base)}
    return [cls("something broke") for cls in sorted(classes, key=str) if not issubclass(cls, Warning)]


LOWER: list[BaseException] = [
    *errors_in(deltalake.exceptions, deltalake.exceptions.DeltaError),
    *errors_in(obstore.exceptions, obstore.exceptions.BaseError),
    *errors_in(pl.exceptions, pl.exceptions.PolarsError),
    pl.exceptions.PanicException("a panic of Rust"),
    pa.ArrowInvalid("not Parquet"),
    aws_error("InternalError", 500),
    botocore.exceptions.EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
    botocore.exceptions.NoCredentialsError(),
    botocore.exceptions.ProfileNotFound(profile="lab"),
    OSError(errno.EIO, "Input/output error"),
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    ConnectionResetError("reset by peer"),
    TimeoutError("too slow"),
]


@pytest.mark.parametrize("error", LOWER, ids=lambda error: type(error).__name__)
def test_an_error_of_a_lower_layer_becomes_ours_with_uri_operation_and_cause(error: BaseException) -> None:
    with pytest.raises(StorageError) as raised, translated("s3://bucket/lake", "read volumes of"):
        raise error
    assert str(raised.value).startswith("read volumes of s3://bucket/lake: ")
    assert (raised.value.uri, raised.value.operation) == ("s3://bucket/lake", "read volumes of")
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [ValueError("bug"), TypeError("bug"), KeyError("bug"), KeyboardInterrupt(), SystemExit()]
)
def test_faults_of_our_own_code_and_interrupts_pass_as_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, translated("s3://bucket/lake", "read"):
        raise error
    assert raised.value is error


@each_error
def test_our_own_errors_pass_as_they_are(error: VxDataError) -> None:
    with pytest.raises(type(error)) as raised, translated("s3://bucket/lake", "read"):
        raise error
    assert raised.value is error


@pytest.mark.parametrize(
    ("error", "word", "retryable"),
    [
        (aws_error("NoSuchBucket", 404), "bucket does not exist", False),
        (aws_error("AccessDenied", 403), "s3:ListBucket", False),
        (aws_error("ExpiredToken"), "AWS_PROFILE", False),
        (aws_error("SlowDown", 503), "SlowDown", True),
        (aws_error("InternalError", 500), "InternalError", True),
        (aws_error("RequestTimeout"), "RequestTimeout", True),
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full", False),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "quota", False),
        (OSError(errno.EFBIG, "File too large"), "too large", False),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot be written", False),
        (OSError(errno.EROFS, "Read-only file system"), "cannot be written", False),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "AWS_ENDPOINT_URL", True),
        (ConnectionResetError("Connection reset by peer"), "reset", True),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "vxdata verify", False),
        (deltalake.exceptions.CommitFailedError("a concurrent transaction"), "another commit", True),
        (obstore.exceptions.PermissionDeniedError("The operation lacked privileges"), "AWS_PROFILE", False),
        (obstore.exceptions.GenericError("server returned 503 Service Unavailable"), "503", True),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_known_fault_names_the_remedy_and_whether_to_try_again(
    error: BaseException, word: str, retryable: bool
) -> None:
    fault = to_storage_error(error, uri="s3://bucket/lake", operation="write to")
    assert word in str(fault)
    assert fault.retryable is retryable


def test_a_message_holds_neither_colours_nor_branches() -> None:
    error = OSError("S3 error\n    \x1b[31m↳\x1b[0m Error performing GET\n      \x1b[31m↳\x1b[0m reset")
    fault = to_storage_error(error, uri="s3://bucket/lake", operation="read")
    assert "S3 error: Error performing GET: reset" in str(fault)


@pytest.mark.parametrize("number", ["403", "404", "412"])
def test_a_number_inside_a_file_name_is_no_status(number: str) -> None:
    text = f"connection reset while reading volumes/datasource_id=a/1{number}f-{number * 20}.parquet"
    fault = to_storage_error(ConnectionResetError(text), uri="s3://bucket/lake", operation="read")
    assert fault.retryable
    assert not any(word in str(fault) for word in ("denied", "missing", "another commit"))


@pytest.mark.parametrize(
    "text",
    [
        "aws_secret_access_key=SESAME",
        "AWS_SESSION_TOKEN: SESAME",
        "https://b.s3.amazonaws.com/k?X-Amz-Signature=SESAME&X-Amz-Date=1",
        "Authorization: AWS4-HMAC-SHA256 Credential=AKIA/2026, Signature=SESAME",
        "<SecretAccessKey>SESAME</SecretAccessKey>",
        '{"secret_access_key": "SESAME"}',
        "https://user:SESAME@store.example/bucket",
    ],
)
def test_a_message_holds_no_secret(text: str) -> None:
    fault = to_storage_error(OSError(f"request failed: {text}"), uri="s3://bucket/lake", operation="read")
    assert "SESAME" not in str(fault)
    assert "request failed" in str(fault)
