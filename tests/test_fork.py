"""A forked process is refused with the remedy, where Polars would hang."""

import subprocess
import sys
from pathlib import Path

FORKING = """
import os, sys
from vxdata.sdk import Client
client = Client(sys.argv[1])
try:
    client.patients.query().count()
except Exception as error:
    assert "no lake" in str(error), error
if os.fork() == 0:
    try:
        client.patients.query().count()
    except Exception as error:
        print(type(error).__name__, error, flush=True)
    os._exit(0)
os.wait()
"""


def test_a_forked_process_is_refused_with_the_remedy(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKING, str(tmp_path / "lake")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("InvalidInputError")
    assert "spawn" in run.stdout
