"""Folders named for steps: whatever ends the process, each is complete or not there.

<step>.partial   being written
<step>.former    to be replaced by one of the same step, or replaced
<step>.removed   being removed
<step>.damaged   set aside, for a person to look at; no program removes it
"""

import shutil
from pathlib import Path

from modessm_jax.training import manifest


def steps_in(place: Path) -> list[int]:
    """The steps of the folders in a place, the latest last."""
    return sorted(int(folder.name) for folder in place.glob("*") if folder.name.isdigit())


def damaged_in(place: Path) -> list[Path]:
    """The folders that were set aside."""
    return sorted(place.glob("*.damaged*"))


def publish(partial: Path) -> None:
    """Gives a complete folder its step's name; one that has this name already makes way."""
    final, former = partial.with_suffix(""), partial.with_suffix(".former")
    if final.exists():
        final.rename(former)
    partial.rename(final)
    manifest.sync_names(final.parent)
    if former.exists():
        shutil.rmtree(former, ignore_errors=True)


def remove(folder: Path) -> None:
    """Removes a folder; if the process ends meanwhile, `tidy` removes the rest."""
    removed = folder.rename(folder.with_name(f"{folder.name}.removed"))
    # Or a power cut could leave the old name with half of what it names.
    manifest.sync_names(folder.parent)
    shutil.rmtree(removed)


def set_aside(folder: Path) -> Path:
    """Renames a damaged folder; under this name it is neither read nor removed."""
    aside, tries = folder.with_name(f"{folder.name}.damaged"), 1
    while aside.exists():
        tries += 1
        aside = folder.with_name(f"{folder.name}.damaged-{tries}")
    return folder.rename(aside)


def tidy(place: Path) -> None:
    """Clears up after a process that was killed."""
    for former in place.glob("*.former"):
        # Between two renames, the one that was to be replaced is the only one under no step.
        final = former.with_suffix("")
        if final.exists():
            shutil.rmtree(former)
        else:
            former.rename(final)
    for removed in place.glob("*.removed"):
        shutil.rmtree(removed)
    for partial in place.glob("*.partial*"):
        # After a failed save Orbax's threads may still be writing: what stays goes the next time.
        shutil.rmtree(partial, ignore_errors=True)
        print(f"{partial} was never completed; removed", flush=True)
