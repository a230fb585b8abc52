"""Looks after the checkpoints of a training run.

    python -m experiments.checkpoints verify RUN
    python -m experiments.checkpoints list RUN
    python -m experiments.checkpoints export RUN --out model.npz

verify reads every file and compares it with the checksum it was saved with; list reads the
manifests alone. Both change nothing, and exit with status 1 where a checkpoint is damaged, the best
model is gone, or there is no checkpoint. Training does the same when it resumes, sets what is
damaged aside as <step>.damaged and goes on from the checkpoint before.

export writes the parameters of the best model (or of a checkpoint, --step) as one file for
numpy.load; the names are paths such as "encoder/kernel".
"""

import argparse
import time
from pathlib import Path

from modessm_jax.runs import checkpoint_files
from modessm_jax.runs.checkpoints import steps_in
from modessm_jax.runs.export import export


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.checkpoints", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    jobs = parser.add_subparsers(dest="job", required=True, metavar="{verify,list,export}")
    for name, words in (
        ("verify", "read every file and say which checkpoints are damaged, and how"),
        ("list", "show steps, sizes, dates and what was set aside"),
        ("export", "write a model's parameters as one .npz"),
    ):
        job = jobs.add_parser(name, help=words, description=words)
        job.add_argument("workdir", type=Path, metavar="RUN", help="folder of the training run")
        if name == "export":
            job.add_argument("--out", type=Path, required=True, help="file to write")
            job.add_argument("--step", type=int, help="of a checkpoint (the best model)")
    options = parser.parse_args(arguments)
    if options.job == "export":
        try:
            weights = export(options.workdir, options.out, options.step)
        except (ValueError, OSError) as error:
            raise SystemExit(str(error)) from error
        print(f"{options.out}: the model of step {weights.step}")
        return
    folders = [
        options.workdir / place / str(step)
        for place in ("checkpoints", "best")
        for step in steps_in(options.workdir / place)
    ]
    if not folders:
        raise SystemExit(f"{options.workdir}: no checkpoint here; give the workdir of a run")
    check = checkpoint_files.verify if options.job == "verify" else checkpoint_files.read
    damaged, known = 0, set()
    for folder in folders:
        try:
            check(folder)
        except checkpoint_files.DamagedError as error:
            damaged += 1
            print(f"{_name(folder)}  damaged: {error}")
        except OSError as error:
            damaged += 1
            print(f"{_name(folder)}  cannot be read: {error}")
        else:
            print(f"{_name(folder)}  {_describe(folder, options.job)}")
            best = checkpoint_files.read(folder)["facts"]["best"]
            known |= set() if best is None else {int(best["step"])}
    missing = sorted(known - set(steps_in(options.workdir / "best")))
    for step in missing:
        print(f"{_name(options.workdir / 'best' / str(step))}  missing: the best model so far")
    if options.job == "list":
        for aside in sorted(options.workdir.glob("*/*.damaged*")):
            print(f"{_name(aside)}  set aside")
    if damaged or missing:
        total = len(folders) + len(missing)
        raise SystemExit(f"{damaged + len(missing)} of {total} damaged, unreadable or missing")


def _name(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}".ljust(22)


def _describe(folder: Path, job: str) -> str:
    content = checkpoint_files.read(folder)
    if job == "verify":
        return f"sound: {len(content['files'])} files"
    size = sum(file["bytes"] for file in content["files"].values())
    saved = (folder / checkpoint_files.NAME).stat().st_mtime
    best = content["facts"]["best"]
    known = "none evaluated yet" if best is None else f"best model: step {int(best['step'])}"
    return (
        f"{size / 1e6:9.2f} MB  {time.strftime('%Y-%m-%d %H:%M', time.localtime(saved))}  {known}"
    )


if __name__ == "__main__":
    main()
