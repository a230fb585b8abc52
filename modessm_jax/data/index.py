"""Which trials a split holds, in the benchmarks' order: what results of any kind are keyed by."""

from pathlib import Path

from modessm_jax.data.hdf5 import read_numbers
from modessm_jax.data.trials import SPLITS, WHERE_DATA_COMES_FROM
from modessm_jax.data.validation import DataError, data_error

Key = tuple[str, int, int]  # session, block number, trial number


def read_index(root: str | Path, split: str) -> dict[Key, str | None]:
    """Every trial of a split with its sentence, None where that is withheld.

    Sessions are in alphabetical order, which is that of their dates, and the trials of each in the
    order of recording. Features are not read.

    Args:
        root: folder of session folders.
        split: "train", "val" or "test".

    Raises:
        DataError: there are no such data, or a file is unreadable or contradicts the layout.
    """
    root = Path(root)
    if split not in SPLITS:
        raise DataError(f"there is no split {split!r}. Choose one of {', '.join(SPLITS)}.")
    files = sorted(root.glob(f"*/data_{split}.hdf5"))
    if not files:
        problem = f"holds no <session>/data_{split}.hdf5"
        raise data_error(root, "", "", problem, WHERE_DATA_COMES_FROM)
    return {
        (file.parent.name, block, number): sentence
        for file in files
        for block, number, sentence in read_numbers(file, file.parent.name)
    }


def describe(key: Key) -> str:
    """A trial's key for people to read."""
    session, block, number = key
    return f"{session}/block {block}/trial {number}"
