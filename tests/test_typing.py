"""Type checkers see what the SDK promises: mypy, and pyright as `basedpyright` ships it (with its own node)."""

import subprocess
import sys
from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parent.parent
CONFIGURATIONS = {
    "with the pydantic plugin": [f"--config-file={ROOT / 'pyproject.toml'}"],
    "without": ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"],
}


@pytest.mark.parametrize("configuration", ["with the pydantic plugin", pytest.param("without", marks=pytest.mark.slow)])
def test_mypy_sees_the_types_that_the_sdk_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configuration: str
) -> None:
    monkeypatch.chdir(ROOT)
    options = ["--strict", "--python-version=3.11", "--cache-dir", str(tmp_path)]
    out, err, status = api.run([*CONFIGURATIONS[configuration], *options, "tests/typing/client.py"])
    assert (err, status) == ("", 0), out


def test_pyright_sees_the_types_that_the_sdk_promises() -> None:
    pyright = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "-p", str(ROOT / "tests/typing")]
    found = subprocess.run(pyright, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
