"""Converts the recordings of participant T12 (Brain-to-Text '24) to the layout of T15.

    python -m experiments.convert_t12 --mat competitionData --out ROOT

Then train with `--config.data.root=ROOT`. The data are on Dryad, doi 10.5061/dryad.x69p8czpq,
competitionData.tar.gz. The command stops at words that the CMU Pronouncing Dictionary lacks and
lists them; give their phonemes in a file (`--additions FILE`), one word a line.

`competitionData/{train,test,competitionHoldOut}/t12.YYYY.MM.DD.mat` (Willett et al. 2023) hold, by
sentence, `tx1` (threshold crossings at -3.5 RMS; tx2..tx4 at lower thresholds) and `spikePow`
(spike-band power), [bins, 256] each, `sentenceText` and `blockIdx`. As the data's authors advise,
tx1 and spikePow of area 6v are kept, the first 128 columns of each, and z-scored by channel and
block. Each of the three partitions has whole blocks.

The logarithm shortens the tails of both features; the official baseline does not take it.
"""

import argparse
import zlib
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import h5py
import numpy as np
import scipy.io
from absl import logging
from jaxtyping import Float, Int32
from scipy.io.matlab import MatReadError

from modessm_jax.data.hdf5 import describe, read_trials, write_trial
from modessm_jax.data.validation import DataError, data_error
from modessm_jax.language.pronunciations import LEXICON_FORMAT, Pronunciations
from modessm_jax.runtime.files import MATLAB, MATLAB_7_3, replacing
from modessm_jax.runtime.files import content as kind_of
from modessm_jax.text import clean

PARTITIONS = {"train": "train", "test": "val", "competitionHoldOut": "test"}
AREA_6V = 128
# The NumPy kinds that each variable may be of, and these in words.
_TYPES = {
    "tx1": ("O", "a cell array"),
    "spikePow": ("O", "a cell array"),
    "blockIdx": ("iuf", "of numbers"),
    "sentenceText": ("U", "of text"),
}

_RESTORE = "Restore the file from Dryad, doi 10.5061/dryad.x69p8czpq"

# What SciPy raises for a file that is missing, truncated, damaged or of another format.
_UNREADABLE = (OSError, ValueError, TypeError, IndexError, NotImplementedError, MatReadError)
_UNREADABLE += (zlib.error,)


@dataclass(frozen=True, eq=False)
class Utterance:
    """One sentence of T12, its text cleaned; None where the text is held out."""

    features: Float[np.ndarray, "bins channels"]
    block: int
    sentence: str | None


def convert(
    source: Path,
    root: Path,
    pronunciations: Pronunciations,
    *,
    exclude_unknown: bool = False,
    log: bool = True,
    zscore: bool = True,
) -> Counter[str]:
    """Writes `<root>/<session>/data_{train,val,test}.hdf5`; returns the sentences of each split.

    `train` becomes train, `test` val and `competitionHoldOut` test, which has no labels.

    Args:
        source: the folder competitionData.
        root: where to write. Existing files are replaced, or removed where no trial is left.
        pronunciations: make the phoneme labels.
        exclude_unknown: leave out training sentences with words that have no pronunciation; by
            default, and in validation always, they are an error.
        log: take log(1 + threshold crossings) and log(power).
        zscore: z-score every channel within its block.

    Raises:
        DataError: there are no such files, one is malformed, or words have no pronunciation.
    """
    files = {split: sorted((source / folder).glob("*.mat")) for folder, split in PARTITIONS.items()}
    if not any(files.values()):
        problem = f"holds no .mat file in {', '.join(PARTITIONS)}"
        remedy = "Give the folder competitionData of Dryad, doi 10.5061/dryad.x69p8czpq"
        if below := [folder for part in PARTITIONS for folder in source.glob(f"*/{part}")]:
            remedy = f"Give {below[0].parent}"
        elif source.name in PARTITIONS:
            remedy = f"Give {source.parent}"
        raise data_error(source, "", "", problem, remedy)
    # Before anything is written, and all unknown words at once.
    for file in chain.from_iterable(files.values()):
        _blocks(file, _load(file, ["blockIdx"]))
    for split in ("train", "val"):
        if split == "val" or not exclude_unknown:
            _check_words(source, files[split], pronunciations)
    counts: Counter[str] = Counter()
    for split, of_split in files.items():
        for file in of_split:
            utterances = read_mat(file, labelled=split != "test", log=log, zscore=zscore)
            target = root / file.stem / f"data_{split}.hdf5"
            try:
                counts[split] += _write(target, file.stem, utterances, pronunciations)
            except DataError as error:
                raise DataError(f"{file}: cannot be converted. {error}") from error
    return counts


def read_mat(
    file: Path, *, labelled: bool, log: bool = True, zscore: bool = True
) -> list[Utterance]:
    """The sentences of one file, in order.

    Power of zero has no logarithm and is given as NaN, which the reader of the layout repairs.

    Raises:
        DataError: the file is unreadable or a field is missing or contradicts another.
    """
    content = _load(file, ["tx1", "spikePow", "blockIdx"] + ["sentenceText"] * labelled)
    sentences = len(content["tx1"])
    for field, values in content.items():
        if len(values) != sentences:
            problem = f"has {len(values)} entries, but tx1 has {sentences} sentences"
            raise data_error(file, "", field, problem, _RESTORE)
    texts = _texts(file, content) if labelled else [None] * sentences
    features = [
        _features(file, number, content["tx1"][number], content["spikePow"][number], log)
        for number in range(sentences)
    ]
    blocks = _blocks(file, content)
    if zscore:
        features = _block_zscore(features, blocks)
    return [Utterance(*fields) for fields in zip(features, blocks, texts, strict=True)]


def _blocks(file: Path, content: dict[str, np.ndarray]) -> list[int]:
    """The block of every sentence."""
    values = content["blockIdx"]
    with np.errstate(invalid="ignore"):  # of infinity
        wrong = np.flatnonzero(~((values >= 0) & (values < 2**31) & (values % 1 == 0)))
    if len(wrong):
        problem = f"is {values[wrong[0]]} for sentence {wrong[0]} (from 0), not a whole number of 0"
        raise data_error(file, "", "blockIdx", f"{problem} or more", _RESTORE)
    return values.astype(int).tolist()


def _block_zscore(trials: list[np.ndarray], blocks: list[int]) -> list[np.ndarray]:
    """Z-scores each channel over all bins of a block.

    Mean and deviation are of the finite values; a constant channel becomes 0.
    """
    scored = list(trials)
    for block in set(blocks):
        members = [index for index, other in enumerate(blocks) if other == block]
        whole = np.concatenate([trials[index] for index in members])
        finite = np.isfinite(whole)
        count = np.maximum(finite.sum(axis=0), 1)
        mean = np.where(finite, whole, 0).sum(axis=0) / count
        deviation = np.sqrt((np.where(finite, whole - mean, 0) ** 2).sum(axis=0) / count)
        # Rounding leaves a constant channel a deviation of about 1e-16 of its value.
        scale = np.where(deviation > 1e-9 * np.abs(mean), deviation, np.inf)
        for index in members:
            scored[index] = (trials[index] - mean) / scale
    return scored


def _features(
    file: Path, number: int, crossings: np.ndarray, power: np.ndarray, log: bool
) -> Float[np.ndarray, "bins channels"]:
    for field, values in (("tx1", crossings), ("spikePow", power)):
        if values.ndim != 2 or values.shape[1] < AREA_6V or values.dtype.kind not in "iuf":
            problem = f"is {values.dtype} of shape {values.shape}, not numbers [bins, 256]"
            raise data_error(file, f"sentence {number}", field, problem, _RESTORE)
    if len(crossings) != len(power):
        problem = f"has {len(power)} bins, but tx1 has {len(crossings)}"
        raise data_error(file, f"sentence {number}", "spikePow", problem, _RESTORE)
    crossings = crossings[:, :AREA_6V].astype(np.float64)
    power = power[:, :AREA_6V].astype(np.float64)
    if log:
        crossings = np.log1p(crossings)
        power = np.log(np.where(power > 0, power, np.nan))
    return np.concatenate([crossings, power], axis=1)


def _load(file: Path, fields: list[str]) -> dict[str, np.ndarray]:
    """The variables of a file, each of the right type and of one axis."""
    try:
        content = scipy.io.loadmat(file, variable_names=fields)
    except _UNREADABLE as error:
        what = kind_of(file) if file.is_file() else ""
        known = f"it is {what}" if what not in ("", MATLAB) else "it may be truncated"
        problem = f"cannot be read as a MATLAB file, {known} ({error})"
        if what == MATLAB_7_3:
            remedy = "In MATLAB, load it and save its variables with -v7"
            raise data_error(file, "", "", f"is {what}, not of 5 to 7", remedy) from error
        raise data_error(file, "", "", problem, _RESTORE) from error
    for field in fields:
        if field not in content:
            raise data_error(file, "", field, "the variable is missing", _RESTORE)
        kinds, wanted = _TYPES[field]
        if content[field].dtype.kind not in kinds:
            problem = f"is an array of {content[field].dtype}, not {wanted}"
            raise data_error(file, "", field, problem, _RESTORE)
    return {field: np.ravel(content[field]) for field in fields}


def _texts(file: Path, content: dict[str, np.ndarray]) -> list[str]:
    texts = [clean(text) for text in content["sentenceText"].tolist()]
    if "" in texts:
        problem = f"of sentence {texts.index('')} (from 0) holds no words"
        raise data_error(file, "", "sentenceText", problem, _RESTORE)
    return texts


def _check_words(source: Path, files: list[Path], pronunciations: Pronunciations):
    texts = [text for file in files for text in _texts(file, _load(file, ["sentenceText"]))]
    words = pronunciations.unknown(texts)
    if words:
        raise data_error(
            source,
            files[0].parent.name,
            "sentenceText",
            f"{len(words)} words have no known pronunciation: {', '.join(words)}",
            f"Add them in a file (--additions FILE: {LEXICON_FORMAT}); training sentences with "
            "such words can be left out instead (--exclude_unknown)",
        )


def _write(
    target: Path, session: str, utterances: list[Utterance], pronunciations: Pronunciations
) -> int:
    """Writes the trials that have labels or need none; returns how many. Without any, no file."""
    in_block: Counter[int] = Counter()
    kept: list[tuple[Utterance, int, Int32[np.ndarray, "labels"] | None]] = []
    for utterance in utterances:
        number = in_block[utterance.block]
        in_block[utterance.block] += 1
        labels = None
        if utterance.sentence is not None:
            labels = pronunciations.ids(utterance.sentence)
            if labels is None:
                words = ", ".join(pronunciations.unknown([utterance.sentence]))
                name = describe((session, utterance.block, number))
                logging.warning("Left out of training: %s, no pronunciation: %s", name, words)
                continue
        kept.append((utterance, number, labels))
    if not kept:
        logging.warning("Not written: %s, no trial is left", target)
        target.unlink(missing_ok=True)
        return 0
    with replacing(target) as partial:
        with h5py.File(partial, "w") as handle:
            for one, number, labels in kept:
                write_trial(handle, session, one.block, number, one.features, labels, one.sentence)
        # Whoever trains on the file must be able to read it.
        for _ in read_trials(partial, session, labels=kept[0][2] is not None, corpora={}):
            pass
    return len(kept)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.convert_t12", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--mat", type=Path, required=True, help="the folder competitionData")
    parser.add_argument("--out", type=Path, required=True, help="the root to write")
    parser.add_argument("--additions", type=Path, help="pronunciations to add to the dictionary's")
    parser.add_argument(
        "--exclude_unknown",
        action="store_true",
        help="leave out training sentences with words that have no pronunciation",
    )
    parser.add_argument("--no_log", action="store_true", help="keep counts and power as they are")
    parser.add_argument("--no_zscore", action="store_true", help="do not z-score within blocks")
    options = parser.parse_args(arguments)
    logging.set_verbosity(logging.INFO)
    try:
        counts = convert(
            options.mat,
            options.out,
            Pronunciations(options.additions),
            exclude_unknown=options.exclude_unknown,
            log=not options.no_log,
            zscore=not options.no_zscore,
        )
    except (DataError, OSError) as error:
        raise SystemExit(str(error)) from error
    for split, count in counts.items():
        print(f"{split}: {count} sentences")


if __name__ == "__main__":
    main()
