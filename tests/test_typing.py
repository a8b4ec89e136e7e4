"""Type checkers see what the SDK promises."""

from pathlib import Path

from mypy import api

ROOT = Path(__file__).parent.parent


def test_mypy_sees_the_types_that_the_sdk_promises(tmp_path: Path) -> None:
    config = ["--config-file", str(ROOT / "pyproject.toml"), "--strict", "--cache-dir", str(tmp_path)]
    out, err, status = api.run([*config, str(ROOT / "tests" / "typing" / "client.py")])
    assert (err, status) == ("", 0), out
