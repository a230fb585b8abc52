"""Seconds to read a training split of T15's shape, against bare h5py reading the same files.

    python -m benchmarks.reading --labels t15_labels.csv --out benchmarks/results/reading

Makes recordings with the sessions, blocks, trials, sentences and phonemes of a table of labels
(columns session, split, block, trial, ground_truth_phonemes, ground_truth_text), 512 channels of
noise in arrays that are neither compressed nor chunked, and as many bins as make 2 GiB. Then, in
turns: h5py alone, which opens every file and takes features, ids and attributes of every trial;
this package without an index of the recordings; and with one, up to the first trial of each
session. Features are not kept in memory by any of them. Writes OUT.md.
"""

import argparse
import csv
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py
import numpy as np

from benchmarks.losses.measure import spread
from benchmarks.losses.report import table
from modessm_jax.data.recordings import read_recordings
from modessm_jax.phonemes import SYMBOLS

CHANNELS, GIB = 512, 2**30
ATTRIBUTES = ("n_time_steps", "seq_len", "sentence_label", "session", "block_num", "trial_num")


def split_symbols(text: str) -> list[str]:
    """The phonemes of a row, such as "AY  | "; silence is written with spaces around it."""
    return [" | " if symbol == "|" else symbol for symbol in text.split()]


def write_recordings(rows: Iterable[dict[str, str]], root: Path, gib: float) -> int:
    """Writes the training trials of the table; the bytes of their features."""
    ids = {symbol: number for number, symbol in enumerate(SYMBOLS)}
    chosen = [row for row in rows if row["split"] == "train"]
    symbols = [split_symbols(row["ground_truth_phonemes"]) for row in chosen]
    bins_a_label = gib * GIB / (4 * CHANNELS) / sum(map(len, symbols))
    noise = np.random.default_rng(0).normal(size=(4096, CHANNELS)).astype(np.float32)
    by_session = defaultdict(list)
    for row, found in zip(chosen, symbols, strict=True):
        by_session[row["session"]].append((row, np.array([ids[s] for s in found], np.int32)))
    size = 0
    for session, trials in by_session.items():
        (root / session).mkdir(parents=True)
        with h5py.File(root / session / "data_train.hdf5", "w") as file:
            for number, (row, labels) in enumerate(trials):
                bins = max(len(labels) + 1, round(bins_a_label * len(labels)))
                group = file.create_group(f"trial_{number:04d}")
                start = number * 7 % (len(noise) - bins)
                group["input_features"] = noise[start : start + bins]
                group["seq_class_ids"] = np.pad(labels, (0, 500 - len(labels)))
                text = row["ground_truth_text"]
                group["transcription"] = np.pad([ord(c) for c in text], (0, 500 - len(text)))
                group.attrs.update(
                    n_time_steps=bins, seq_len=len(labels), sentence_label=text, session=session,
                    block_num=int(row["block"]), trial_num=int(row["trial"]),
                )  # fmt: skip
                size += noise[:bins].nbytes
    return size


def bare(root: Path) -> int:
    """Reads all that a training program needs, with h5py alone; the number of trials."""
    count = 0
    for path in sorted(root.glob("*/data_train.hdf5")):
        with h5py.File(path) as file:
            for group in file.values():
                _ = group["input_features"][:], group["seq_class_ids"][:]
                _ = [group.attrs[name] for name in ATTRIBUTES]
                count += 1
    return count


def without_index(root: Path) -> int:
    """Reads and checks the split; the number of trials."""
    (root / "index_train.json").unlink(missing_ok=True)
    return len(read_recordings(root, "train", memory_gib=0.0, index_folder=root))


def with_index(root: Path) -> int:
    """Reads the split with the index that is there, and a trial of each session."""
    split = read_recordings(root, "train", memory_gib=0.0)
    for index in np.unique(split.session_ids, return_index=True)[1]:
        split.features(int(index))
    return len(split)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--labels", type=Path, required=True, help="CSV of labels")
    parser.add_argument("--gib", type=float, default=2.0, help="size of the features")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="folder for the recordings, removed at the end")
    parser.add_argument("--out", type=Path, required=True, help="path without suffix")
    options = parser.parse_args()
    with options.labels.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    root = Path(tempfile.mkdtemp(dir=options.work))
    count = 0
    try:
        size = write_recordings(rows, root, options.gib)
        time.sleep(3)  # a file that has only just been written is not indexed
        calls: dict[str, Callable[[Path], int]] = {
            "h5py alone": bare, "first start": without_index, "second start": with_index
        }  # fmt: skip
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for round_number in range(options.rounds + 1):
            for name, call in calls.items():
                start = time.perf_counter()
                count = call(root)
                if round_number:  # the first fills the page cache
                    seconds[name].append(time.perf_counter() - start)
    finally:
        shutil.rmtree(root)
    found = {name: np.array(values) for name, values in seconds.items()}
    lines = []
    for name, values in found.items():
        absolute, ratio = spread(values), spread(values / found["h5py alone"])
        cells = [f"{n:.2f}" for n in (*absolute, *ratio)]
        lines.append((name, cells[0], " to ".join(cells[1:3]), cells[3], " to ".join(cells[4:])))
    what = f"{count:,} trials, {size / GIB:.2f} GiB"
    head = (what, "s, median", "quartiles", "times h5py", "quartiles")
    text = table(head, lines) + "\n"
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
