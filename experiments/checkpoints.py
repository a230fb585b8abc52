"""Verifies, lists and exports the checkpoints of a training run.

    python -m experiments.checkpoints verify RUN [--deep]
    python -m experiments.checkpoints list RUN
    python -m experiments.checkpoints export RUN --out model.npz [--names nejm]

verify compares every file with the checksum it was saved with, and with --deep also loads all that
is in them, as a resumed run would; list reads the manifests alone. Both change nothing, and exit
with status 1 where a checkpoint is damaged, the best model is missing, or there is no checkpoint.
Training verifies too when it resumes: it sets a damaged checkpoint aside as <step>.damaged, and
goes on from the one before.

export writes the parameters of the best model (or of a checkpoint, --step) as one file for
numpy.load; the names are paths such as "encoder/kernel". With --names they are those of the code
of the model's authors (see `experiments.import_weights`), which reads them again; unless the file
is an .npz, torch writes it.
"""

import argparse
import time
from pathlib import Path

from modessm_jax.official.export import NAMES, export_official
from modessm_jax.runs import checkpoint_files
from modessm_jax.runs.checkpoint_files import CheckpointError, steps_in
from modessm_jax.runs.checkpoints import read_back
from modessm_jax.runs.identity import check_format
from modessm_jax.runs.load import export


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.checkpoints", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    jobs = parser.add_subparsers(dest="job", required=True, metavar="{verify,list,export}")
    for name, text in (
        ("verify", "read every file, and show which checkpoints are damaged and how"),
        ("list", "show steps, sizes, dates and what was set aside"),
        ("export", "write a model's parameters as one .npz"),
    ):
        job = jobs.add_parser(name, help=text, description=text)
        job.add_argument("workdir", type=Path, metavar="RUN", help="folder of the training run")
        if name == "export":
            job.add_argument("--out", type=Path, required=True, help="file to write")
            job.add_argument("--step", type=int, help="of a checkpoint (the best model)")
            job.add_argument("--names", choices=list(NAMES), help="of whose code (of this one)")
        if name == "verify":
            job.add_argument("--deep", action="store_true", help="load every array too (no)")
    options = parser.parse_args(arguments)
    try:
        if options.job == "export":
            where = options.workdir, options.out
            if options.names is None:
                step = export(*where, options.step)
            else:
                step = export_official(*where, options.names, options.step)
            print(f"{options.out}: the model of step {step}")
        else:
            check_format(options.workdir)
            _inspect(options.workdir, options.job, deep=options.job == "verify" and options.deep)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(str(error)) from error


def _inspect(workdir: Path, job: str, *, deep: bool) -> None:
    """Prints a line for each checkpoint; raises SystemExit if one is damaged or missing."""
    folders = [
        workdir / place / str(step)
        for place in ("checkpoints", "best")
        for step in steps_in(workdir / place)
    ]
    if not folders:
        raise SystemExit(f"{workdir}: no checkpoint here; give the workdir of a run")
    check = checkpoint_files.verify if job == "verify" else checkpoint_files.read_manifest
    damaged, named = 0, set()
    for folder in folders:
        try:
            check(folder)
            if deep:
                read_back(folder)
        except checkpoint_files.DamagedError as error:
            damaged += 1
            print(f"{_name(folder)}  damaged: {error}")
        except (OSError, CheckpointError) as error:
            damaged += 1
            print(f"{_name(folder)}  cannot be read: {error}")
        else:
            print(f"{_name(folder)}  {_describe(folder, job)}")
            best = checkpoint_files.read_manifest(folder)["facts"]["best"]
            named |= set() if best is None else {int(best["step"])}
    missing = sorted(named - set(steps_in(workdir / "best")))
    for step in missing:
        print(f"{_name(workdir / 'best' / str(step))}  missing: the best model so far")
    if job == "list":
        for aside in sorted(workdir.glob("*/*.damaged*")):
            print(f"{_name(aside)}  set aside")
    if damaged or missing:
        total = len(folders) + len(missing)
        raise SystemExit(f"{damaged + len(missing)} of {total} damaged, unreadable or missing")


def _name(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}".ljust(22)


def _describe(folder: Path, job: str) -> str:
    content = checkpoint_files.read_manifest(folder)
    if job == "verify":
        return f"sound: {len(content['files'])} files"
    size = sum(file["bytes"] for file in content["files"].values())
    saved = (folder / checkpoint_files.MANIFEST).stat().st_mtime
    best = content["facts"]["best"]
    best = "none evaluated yet" if best is None else f"best model: step {int(best['step'])}"
    return f"{size / 1e6:9.2f} MB  {time.strftime('%Y-%m-%d %H:%M', time.localtime(saved))}  {best}"


if __name__ == "__main__":
    main()
