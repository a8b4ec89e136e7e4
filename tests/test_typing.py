"""Type checkers see what the SDK promises: mypy here, pyright by hand (its comments stand in the file too)."""

from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parent.parent
CONFIGURATIONS = {
    "with the pydantic plugin": [f"--config-file={ROOT / 'pyproject.toml'}"],
    "without": ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"],
}


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_mypy_sees_the_types_that_the_sdk_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configuration: str
) -> None:
    monkeypatch.chdir(ROOT)
    options = ["--strict", "--python-version=3.11", "--cache-dir", str(tmp_path)]
    out, err, status = api.run([*CONFIGURATIONS[configuration], *options, "tests/typing/client.py"])
    assert (err, status) == ("", 0), out
