"""The numerical tests of losses, blocks and models, with matrix products at a given precision.

On a GPU JAX multiplies float32 in TF32 unless asked for "highest". Tests that need four devices
cannot pass on one GPU; each that fails is named.
"""

import collections
import os
import re
import subprocess
import sys

from benchmarks.gpu_check import programs
from benchmarks.losses.report import table

SECONDS = 150  # then it is stopped, and counted as far as it came
ROOMS = ("tests/losses", "tests/models")
SHORT = ("tests/losses/test_cost.py",)
LINE = re.compile(r"^(?:\[gw\d+\].*?)?(PASSED|FAILED|ERROR|SKIPPED) (tests/\S+)", re.MULTILINE)


def main() -> None:
    parser = programs.parser(__doc__)
    parser.add_argument("precision", choices=["highest", "default"])
    options = parser.parse_args()
    log = programs.shared_folder() / f"tests_{options.precision}.log"
    workers = [] if options.smoke else ["-n", "6"]
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-m", "not slow", "-v", "--tb=line", *workers,
             "-p", "no:cacheprovider", *(SHORT if options.smoke else ROOMS)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "JAX_DEFAULT_MATMUL_PRECISION": options.precision},
            start_new_session=True,
        )  # fmt: skip
        ended = "ran to its end"
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            programs.kill_group(process)
            ended = f"stopped after {SECONDS} s"
    text = log.read_text(errors="replace")
    by_name = outcomes(text)
    counts = collections.Counter(by_name.values())
    print(table(("outcome", "tests"), [(k, str(n)) for k, n in sorted(counts.items())]))
    print(f"\n{ended}; exit status {process.returncode}\n")
    for name, outcome in sorted(by_name.items()):
        if outcome in ("FAILED", "ERROR"):
            print(f"- {outcome} {name}")
    reasons = re.findall(r"^(?:E  |/).*(?:Error|assert).*$", text, re.MULTILINE)
    print("\n".join(f"    {reason[:200]}" for reason in dict.fromkeys(reasons[:40])))
    if not by_name:
        sys.exit(f"no test ran: {text[-1000:]}")


def outcomes(text: str) -> dict[str, str]:
    """The outcome of each test, by name, in the output of `pytest -v`."""
    with_workers = {name: outcome for outcome, name in LINE.findall(text)}
    serial = re.findall(r"^(tests/\S+) (PASSED|FAILED|ERROR|SKIPPED)", text, re.MULTILINE)
    return with_workers | {str(name): str(outcome) for name, outcome in serial}


if __name__ == "__main__":
    main()
