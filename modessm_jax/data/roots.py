"""The folder of the session folders, and what a folder without any recordings is instead."""

from pathlib import Path

from modessm_jax.data.validation import DataError, data_error

WHERE_DATA_COMES_FROM = (
    "Recordings are not part of this project. T15 (Brain-to-Text '25): Dryad, doi "
    "10.5061/dryad.dncjsxm85; give the folder hdf5_data_final. T12 (Brain-to-Text '24): Dryad, doi "
    "10.5061/dryad.x69p8czpq; convert it with "
    "`python -m experiments.convert_t12 --mat DIR --out ROOT`. To start without either, simulate: "
    "`python -m experiments.simulate --out DIR`"
)


def session_names(root: Path) -> tuple[str, ...]:
    """The names of all sessions under a root, in alphabetical order.

    Raises:
        DataError: there are none; see `no_recordings`.
    """
    names = tuple(sorted({file.parent.name for file in root.glob("*/data_*.hdf5")}))
    if not names:
        raise no_recordings(root)
    return names


def no_recordings(root: Path, split: str = "") -> DataError:
    """The error for a root without recordings (of a split): what is there, the likeliest first."""
    present = sorted({file.name for file in root.glob("*/data_*.hdf5")})
    if present:
        problem = f"no session read has a data_{split}.hdf5, there is {', '.join(present)}"
        return data_error(root, "", "", problem, "Choose another split, or restore the files")
    problem = "holds no <session>/data_{train,val,test}.hdf5"
    levels = {n: next(root.glob("*/" * n + "data_*.hdf5"), None) for n in range(5)}
    below = next(((n, file) for n, file in levels.items() if file is not None), None)
    matlab = next((file for n in (0, 1) for file in root.glob("*/" * n + "*.mat")), None)
    packed = [file for form in ("zip", "tar", "tar.gz", "tgz") for file in root.glob(f"*.{form}")]
    if root.is_file():
        return data_error(root, "", "", "is one file of a session", f"Give {root.parent.parent}")
    if not root.exists():
        return data_error(root, "", "", "there is no such folder", WHERE_DATA_COMES_FROM)
    if below is not None and below[0] == 0:
        problem = "is the folder of one session"
        return data_error(root, "", "", problem, f"Give {root.parent}, the folder of the sessions")
    if below is not None:
        height = "one folder" if below[0] == 2 else f"{below[0] - 1} folders"
        problem += f", it is {height} too high"
        return data_error(root, "", "", problem, f"Give {below[1].parent.parent}, which does")
    if matlab is not None:
        remedy = f"Convert them: `python -m experiments.convert_t12 --mat {root} --out ROOT`"
        return data_error(root, "", "", "holds MATLAB files", remedy)
    if packed:
        return data_error(root, "", "", f"holds {packed[0].name}", "Unpack it, and give its folder")
    return data_error(root, "", "", problem, WHERE_DATA_COMES_FROM)
