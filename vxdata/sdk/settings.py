"""Settings: the lake's address, the author and how to reach S3, from arguments, the environment and `vxdata.toml`.

What comes first wins, key by key: an argument; the profile that an argument names; the environment (``VXDATA_*``); the
profile that the environment or a file names; the project's file (``vxdata.toml`` in this folder or the nearest parent
that has one); the user's file (in the user's configuration folder); a default. See docs/settings.md.

By hand, not by pydantic-settings: each value says where it came from, and an import of the SDK stays light.
"""

import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vxdata.errors import InvalidInputError, NotFoundError, did_you_mean

FILE_NAME = "vxdata.toml"
KEYS = ("uri", "author", "aws_profile", "aws_region", "aws_endpoint_url")
SECTIONS = ("profiles", "maintain")
"""Tables of a file: the profiles here, the others are read by those who use them."""
_SECRETS = ("secret", "token", "password", "access_key")

_asked_profile: ContextVar[str | None] = ContextVar("vxdata_profile", default=None)


@dataclass(frozen=True)
class Setting:
    """A value, and where it came from, in words."""

    value: str | None
    source: str


@dataclass(frozen=True)
class SettingsFile:
    """A `vxdata.toml`.

    Attributes:
        path: where it is.
        is_project: whether it is the project's, not the user's.
        values: its keys outside of profiles.
        profile: the profile that it chooses.
        profiles: the keys of each profile.
        sections: its other tables.
    """

    path: Path
    is_project: bool
    values: Mapping[str, str]
    profile: str | None
    profiles: Mapping[str, Mapping[str, str]]
    sections: Mapping[str, Mapping[str, Any]]

    @property
    def name(self) -> str:
        """The file in words."""
        return f"{'project' if self.is_project else 'user'} file {self.path}"


@dataclass(frozen=True)
class Settings:
    """All settings, each with its source.

    Attributes:
        profile: the chosen profile; its value is None where none is chosen.
        values: for each of `KEYS` its value.
        files: the files that were read, the project's first.
    """

    profile: Setting
    values: Mapping[str, Setting]
    files: tuple[SettingsFile, ...]

    def __getitem__(self, key: str) -> str | None:
        return self.values[key].value

    @property
    def storage_options(self) -> dict[str, str]:
        """The settings of S3, as `Client(storage_options=)` takes them."""
        names = {key: key.removeprefix("aws_") for key in KEYS if key.startswith("aws_")}
        return {name: value for key, name in names.items() if (value := self[key]) is not None}


def use_profile(name: str | None) -> None:
    """Choose the profile of all clients of this process that name none themselves, as an argument does."""
    _asked_profile.set(name)


def find_settings(*, profile: str | None = None) -> Settings:
    """Find the settings that hold here and now.

    Args:
        profile: the profile that the caller names.

    Raises:
        InvalidInputError: a file is no TOML, or has an unknown key or a secret; a variable is empty.
        NotFoundError: no file has the profile.
    """
    files = tuple(_files())
    asked = profile if profile is not None else _asked_profile.get()
    chosen = _choose_profile(asked, files)
    own = [(f"profile {chosen.value!r} of {file.name}", file.profiles.get(chosen.value or "", {})) for file in files]
    if chosen.value is not None and not any(chosen.value in file.profiles for file in files):
        known = sorted({name for file in files for name in file.profiles})
        where = did_you_mean(chosen.value, known) if known else f" No {FILE_NAME} here has profiles."
        raise NotFoundError(f"there is no profile {chosen.value!r} ({chosen.source}).{where}")
    environment = [(f"environment {_variable(key)}", {key: value}) for key in KEYS if (value := _environment(key))]
    plain = [(file.name, file.values) for file in files]
    layers = [*own, *environment, *plain] if asked is not None else [*environment, *own, *plain]
    return Settings(chosen, {key: _first(key, layers) for key in KEYS}, files)


def _choose_profile(asked: str | None, files: tuple[SettingsFile, ...]) -> Setting:
    if asked is not None:
        return Setting(asked, "argument --profile")
    if named := _environment("profile"):
        return Setting(named, "environment VXDATA_PROFILE")
    return next((Setting(f.profile, f.name) for f in files if f.profile is not None), Setting(None, "default"))


def _first(key: str, layers: list[tuple[str, Mapping[str, str]]]) -> Setting:
    return next((Setting(values[key], source) for source, values in layers if key in values), Setting(None, "default"))


def _variable(key: str) -> str:
    return f"VXDATA_{key.upper()}"


def _environment(key: str) -> str | None:
    value = os.environ.get(_variable(key))
    if value is not None and not value.strip():
        raise InvalidInputError(f"{_variable(key)} = {value!r}: a text that is not empty is expected; else unset it.")
    return value


# ---- files


def user_file() -> Path:
    """Return where the user's file is, or would be."""
    from platformdirs import user_config_path

    return user_config_path("vxdata", appauthor=False) / FILE_NAME


def _files() -> Iterator[SettingsFile]:
    user = user_file()
    here = Path.cwd()
    project = next((p for folder in (here, *here.parents) if (p := folder / FILE_NAME).is_file() and p != user), None)
    if project is not None:
        yield _read(project, is_project=True)
    if user.is_file():
        yield _read(user, is_project=False)


def _read(path: Path, is_project: bool) -> SettingsFile:
    import tomllib

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} is no TOML: {error}.") from error
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror or error}.") from error
    sections = {name: value for name, value in content.items() if isinstance(value, dict)}
    for name in sections:
        if name not in SECTIONS:
            raise InvalidInputError(f"{path}: unknown section [{name}].{did_you_mean(name, SECTIONS)}")
    plain = {name: value for name, value in content.items() if name not in sections}
    chosen = plain.pop("profile", None)
    if chosen is not None and not isinstance(chosen, str):
        raise InvalidInputError(f"{path}: profile = {chosen!r}: the name of a profile is expected, in quotes.")
    profiles = {}
    for name, value in sections.pop("profiles", {}).items():
        if not isinstance(value, dict):
            raise InvalidInputError(f"{path}: [profiles.{name}] is expected, not profiles.{name} = {value!r}.")
        profiles[name] = _checked(path, f"profiles.{name}", value)
    return SettingsFile(path, is_project, _checked(path, "", plain), chosen, profiles, sections)


def _checked(path: Path, table: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of a table; an address that is a relative path starts at the file's folder."""
    where = f"{path}: [{table}] " if table else f"{path}: "
    for name, value in values.items():
        if name not in KEYS and any(word in name.lower() for word in _SECRETS):
            raise InvalidInputError(
                f"{where}{name}: secrets do not belong here; keep them in an AWS profile (aws_profile names it) or in "
                "the environment."
            )
        if name not in KEYS:
            known = KEYS if table else (*KEYS, "profile", *SECTIONS)
            raise InvalidInputError(f"{where}unknown key {name!r}.{did_you_mean(name, known)}")
        if not isinstance(value, str) or not value.strip():
            raise InvalidInputError(f"{where}{name} = {value!r}: a text is expected, in quotes and not empty.")
    uri = values.get("uri")
    if uri is not None and "://" not in uri:
        return {**values, "uri": str(path.parent / Path(uri).expanduser())}
    return dict(values)
