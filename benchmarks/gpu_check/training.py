"""Real training of the demo on simulated recordings: its error rate, its speed, and a resume.

`train` makes as many steps as fit. `resume` makes few, once to the end and once killed with SIGKILL
and resumed, with operations that XLA computes in the same order every time: the arrays must be
equal to the bit.
"""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.faults.victim import fingerprint
from benchmarks.gpu_check import programs

SECONDS = 170  # of training; then it is told to save and stop


def simulate(smoke: bool) -> Path:
    """The folder of the recordings; the first part that needs it makes them."""
    root = programs.shared_folder() / ("toy" if smoke else "recordings")
    sizes = ["--sessions=2", "--train=8", "--val=2", "--test=0", "--electrodes=4"] if smoke else []
    with root.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            command = [sys.executable, "-m", "experiments.simulate", f"--out={root}", *sizes]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return root


def start(root: Path, workdir: Path, *overrides: str, flags: str = "") -> subprocess.Popen[bytes]:
    """Starts or resumes a run; its output goes to a file beside it."""
    command = [
        sys.executable, "-m", "experiments.train", "--config=configs/multiscale.py:demo",
        f"--config.data.root={root}", f"--workdir={workdir}", *overrides,
    ]  # fmt: skip
    log = workdir.with_suffix(".log").open("a")
    environment = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
    return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def wait(process: subprocess.Popen[bytes], workdir: Path, allowed: tuple[int, ...] = (0,)) -> None:
    """Waits for the end of a run; exits where its status is not allowed."""
    status = process.wait()
    if status not in allowed:
        sys.exit(f"exit status {status}: {workdir.with_suffix('.log').read_text()[-1500:]}")


def train(smoke: bool) -> None:
    """Trains the demo to its end, or for as long as there is time."""
    root, workdir = simulate(smoke), programs.shared_folder() / "demo"
    overrides = ["--config.training.log_every=5"]
    if smoke:
        overrides += [f"--config.training.{key}=4" for key in ("steps", "eval_every", "save_every")]
        overrides += ["--config.optimizer.warmup_steps=1", "--config.data.buckets=1"]
    begin = time.monotonic()
    process = start(root, workdir, *overrides)
    try:
        process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
    wait(process, workdir, (0, 75))
    seconds = time.monotonic() - begin
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    print(f"{seconds:.0f} s in all, {entries[-1]['step']} steps.\n")
    print("| step | val PER | loss |\n|---|---|---|")
    for entry in entries:
        if entry["kind"] == "evaluation":
            print(f"| {entry['step']} | {entry['per']:.2%} | {entry['loss']:.3f} |")
    rates = re.findall(r".*/s.*", workdir.with_suffix(".log").read_text())
    print("\n" + "\n".join(f"    {line.strip()}" for line in rates[-3:]))


def resume(smoke: bool) -> None:
    """Compares a run that was killed with one that was not."""
    del smoke
    root = simulate(True)
    flags = "--xla_gpu_deterministic_ops=true" if os.environ.get("JAX_PLATFORMS") != "cpu" else ""
    few = [f"--config.training.{k}={n}" for k, n in
           (("steps", 6), ("eval_every", 3), ("save_every", 3), ("log_every", 1))]  # fmt: skip
    few += ["--config.data.batch_size=4", "--config.data.buckets=1"]
    few += ["--config.model.dtype=bfloat16", "--config.optimizer.warmup_steps=1"]
    digests = []
    for name in ("whole", "killed"):
        workdir = programs.shared_folder() / name
        process = start(root, workdir, *few, flags=flags)
        if name == "killed":
            log = workdir.with_suffix(".log")
            while process.poll() is None and not re.search(r"step [45]\b", log.read_text()):
                time.sleep(0.02)
            process.kill()
            print(f"killed: status {process.wait()}\n")
            process = start(root, workdir, *few, flags=flags)
        wait(process, workdir)
        digests.append(fingerprint(workdir))
        print(f"- {name}: sha256 {digests[-1]}", flush=True)
    same = digests[0] == digests[1]
    print(f"\nThe two are {'equal to the bit' if same else 'DIFFERENT'} ({flags or 'no flags'}).")
    sys.exit(not same)


if __name__ == "__main__":
    parser = programs.parser(__doc__)
    parser.add_argument("part", choices=["train", "resume"])
    chosen = parser.parse_args()
    {"train": train, "resume": resume}[chosen.part](chosen.smoke)
