"""Settings: what wins over what, where each value comes from, and mistakes in files that are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import run_here as run
from vxdata.errors import InvalidInputError, NotFoundError
from vxdata.schemas import Resource
from vxdata.sdk import Client
from vxdata.sdk.settings import find_settings, user_file


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, with a folder in it that is the working one."""
    (tmp_path / "project" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project" / "deep")
    return tmp_path / "project"


def write(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vxdata.toml").write_text(text)


def write_user(text: str) -> None:
    write(user_file().parent, text)


def test_an_argument_wins_over_the_environment_over_the_project_over_the_user(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_user('author = "user"\nuri = "s3://user/lake"\naws_region = "eu-north-1"')
    assert Client().uri == "s3://user/lake"
    write(project, 'author = "project"\nuri = "s3://project/lake"')
    assert (Client().uri, Client().author) == ("s3://project/lake", "project")
    monkeypatch.setenv("VXDATA_URI", "s3://environment/lake")
    assert (Client().uri, Client().author) == ("s3://environment/lake", "project")
    assert Client("s3://argument/lake", author="me").author == "me"
    assert find_settings()["aws_region"] == "eu-north-1"


def test_without_any_setting_the_lake_is_in_the_data_folder(project: Path) -> None:
    assert Client().uri.endswith("vxdata/lake")
    assert find_settings().files == ()


def test_the_nearest_file_is_the_project_s(project: Path) -> None:
    write(project, 'author = "far"\naws_region = "eu-west-1"')
    write(project / "deep", 'author = "near"')
    assert (find_settings()["author"], find_settings()["aws_region"]) == ("near", None)


def test_a_relative_address_starts_at_the_file(project: Path) -> None:
    write(project, 'uri = "data/lake"')
    assert Path(Client().uri) == project / "data" / "lake"


PROFILES = """
uri = "s3://plain/lake"
author = "plain"
[profiles.lab]
uri = "s3://lab/lake"
aws_profile = "lab-sso"
[maintain]
anything = { goes = 1 }
"""


def test_a_profile_that_is_named_as_argument_wins_over_the_environment(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project, PROFILES)
    monkeypatch.setenv("VXDATA_URI", "s3://environment/lake")
    assert Client(profile="lab").uri == "s3://lab/lake"
    monkeypatch.setenv("VXDATA_PROFILE", "lab")
    assert (Client().uri, find_settings()["aws_profile"]) == ("s3://environment/lake", "lab-sso")
    monkeypatch.delenv("VXDATA_URI")
    assert (Client().uri, Client().author) == ("s3://lab/lake", "plain")


def test_the_script_of_a_query_has_the_profile_of_its_client(project: Path) -> None:
    write_user('[profiles.lab]\nauthor = "lab"')
    query = Client(project / "lake", profile="lab").volumes.query()
    assert f"client = Client({str(project / 'lake')!r}, profile='lab')" in query.to_python()


def test_a_file_may_choose_its_profile_and_the_user_s_file_may_hold_it(project: Path) -> None:
    write_user('[profiles.lab]\nuri = "s3://lab/lake"')
    write(project, 'profile = "lab"\nauthor = "project"')
    assert (Client().uri, Client().author) == ("s3://lab/lake", "project")


def test_the_settings_of_s3_reach_the_store(project: Path, moto_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.servers import make_bucket

    make_bucket(moto_url, "by-settings")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    write(project, f'uri = "s3://by-settings/lake"\naws_endpoint_url = "{moto_url}"\naws_region = "eu-central-1"')
    Client().datasources.create(Resource(identifier="datasource/d"))
    assert Client().datasources.retrieve("datasource/d").identifier == "datasource/d"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("urii = 's3://b/l'", "unknown key 'urii'. Did you mean 'uri'?"),
        ("[profile.lab]\nuri = 's3://b/l'", "unknown section [profile]. Did you mean 'profiles'?"),
        (
            "[profiles.lab]\nendpoint_url = 'x'",
            "[profiles.lab] unknown key 'endpoint_url'. Did you mean 'aws_endpoint_url'?",
        ),
        ("[profiles]\nlab = 's3://b/l'", "[profiles.lab] is expected"),
        ("aws_secret_access_key = 'SESAME'", "aws_secret_access_key: secrets do not belong here"),
        ("[profiles.lab]\naws_session_token = 'SESAME'", "secrets do not belong here"),
        ("author = 5", "author = 5: a text is expected"),
        ("uri = ''", "uri = '': a text is expected"),
        ("profile = 5", "the name of a profile is expected"),
        ("uri = ", "is no TOML"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_the_file(project: Path, text: str, words: str) -> None:
    write(project, text)
    with pytest.raises(InvalidInputError) as raised:
        Client()
    assert str(raised.value).startswith(str(project / "vxdata.toml"))
    assert words in str(raised.value)
    assert "SESAME" not in str(raised.value)


def test_an_unknown_profile_is_named_with_the_nearest(project: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no profile 'lap' .*No vxdata.toml here has profiles"):
        Client(profile="lap")
    write(project, PROFILES)
    with pytest.raises(NotFoundError, match=r"no profile 'lap' \(argument --profile\)\. Did you mean 'lab'\?"):
        Client(profile="lap")


def test_config_show_says_where_each_value_comes_from(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, PROFILES)
    monkeypatch.setenv("VXDATA_AUTHOR", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SESAME")
    done = run("--profile", "lab", "config", "show", "--json")
    shown = json.loads(done.stdout)["settings"]
    file = f"project file {project / 'vxdata.toml'}"
    assert shown["uri"] == {"value": "s3://lab/lake", "source": f"profile 'lab' of {file}"}
    assert shown["author"] == {"value": "me", "source": "environment VXDATA_AUTHOR"}
    assert shown["profile"] == {"value": "lab", "source": "argument --profile"}
    assert shown["aws_region"] == {"value": None, "source": "default"}
    people = run("config", "show", "--profile", "lab")
    assert "s3://lab/lake" in people.stdout
    assert "SESAME" not in people.stdout + done.stdout


def test_the_default_values_are_shown(project: Path) -> None:
    shown = json.loads(run("config", "show", "--json").stdout)
    assert shown["settings"]["uri"]["source"] == "default"
    assert shown["settings"]["uri"]["value"].endswith("vxdata/lake")
    assert shown["files"] == []
    assert shown["user_file"] == str(user_file())
