"""A thousand non-finite steps and a thousand malformed files: the outcomes of the slow tests."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.faults.report import Row, quoted
from benchmarks.faults.victim import ENVIRONMENT

_ROOT = Path(__file__).parents[2]

# Fault, and the file with its slow tests, which record "times" and "outcome".
TESTS = (
    ("NaN or infinity in features, gradients; labels out of range", "training/test_injection.py"),
    ("malformed HDF5 trials by the fuzzer", "data/test_fuzz.py"),
)


def rows() -> Iterator[Row]:
    """One for each file of tests."""
    for fault, file in TESTS:
        yield tested(fault, _ROOT / "tests" / file)


def tested(fault: str, file: Path) -> Row:
    """Runs the slow tests of a file, with this interpreter."""
    if importlib.util.find_spec("pytest") is None:
        return Row(fault, 0, "needs pytest (pip install '.[dev]'), which is not here", None)
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.xml"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-m", "slow", f"--junitxml={record}", str(file)],
            cwd=_ROOT,
            env={**ENVIRONMENT, **os.environ},
            capture_output=True,
            text=True,
            check=False,
        )
        recorded = _properties(record) if record.exists() else {}
    passed = done.returncode == 0 and int(recorded.get("times", 0)) > 0
    # The last lines name what failed, or why nothing was run.
    last = " ".join((done.stdout + done.stderr).splitlines()[-2:])
    outcome = recorded.get("outcome", "") if passed else quoted(last)
    return Row(fault, int(recorded.get("times", 0)), outcome, passed)


def _properties(record: Path) -> dict[str, str]:
    """What the tests recorded with `record_testsuite_property`."""
    found = ElementTree.parse(record).iter("property")
    return {one.attrib["name"]: one.attrib["value"] for one in found}
