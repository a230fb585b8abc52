"""Logits of the official Brain-to-Text '25 pipeline (Neuroprosthetics-Lab/nejm-brain-to-text).

Its training leaves `val_metrics.pkl` next to its best checkpoint: a pickled dictionary with, for
each batch, `logits` float32 [batch, frames, 41] padded at the end, `n_time_steps` [batch], which
counts frames of logits, `block_nums` and `trial_nums` [batch], and `day_indicies` [batch] (sic),
which count the sessions in `dataset.sessions` of the `args.yaml` beside it. Classes are in our
order: blank, AA to ZH, silence. Other entries are ignored.

Unpickling can run any program; here nothing but NumPy arrays is let through.
"""

import pickle
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float32
from scipy.special import log_softmax

from modessm_jax.data.recordings import Key, describe
from modessm_jax.data.validation import DataError, data_error
from modessm_jax.phonemes import CLASSES
from modessm_jax.runtime.files import replacing

ARGUMENTS = "args.yaml"
METRICS = "val_metrics.pkl"

_FIELDS = ("logits", "n_time_steps", "block_nums", "trial_nums", "day_indicies")
# All that a pickled NumPy array or number is made of.
_HARMLESS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}
# What unpickling damaged bytes can raise.
_UNREADABLE = (
    *(OSError, EOFError, pickle.UnpicklingError, MemoryError, OverflowError),
    *(ValueError, TypeError, LookupError, AttributeError, ImportError),
)
_REMEDY = "Give val_metrics.pkl of the official pipeline, trained with save_val_logits"


def read_official_logits(path: str | Path) -> dict[Key, Float32[np.ndarray, "frames classes"]]:
    """Natural log-probabilities of every trial in a file of the official pipeline.

    Args:
        path: its `val_metrics.pkl`, or any pickle with the same entries; beside it `args.yaml`,
            which names the sessions.

    Raises:
        DataError: a file cannot be read, lacks an entry or contradicts itself, or a trial occurs
            twice.
    """
    path = Path(path)
    batches = _batches(path, _unpickle(path))
    sessions = _read_sessions(path.with_name(ARGUMENTS))
    found: dict[Key, np.ndarray] = {}
    for number, batch in enumerate(batches):
        error = partial(data_error, path, f"batch {number}")
        for key, logits in _trials(batch, sessions, error):
            if key in found:
                raise error("", f"{describe(key)} occurs twice", "Keep one evaluation in the file")
            if not np.isfinite(logits).all():
                problem = f"are not all finite for {describe(key)}"
                raise error("logits", problem, "Evaluate the model again")
            found[key] = log_softmax(logits.astype(np.float64), axis=1).astype(np.float32)
    return found


def write_official_logits(
    folder: str | Path, emissions: Mapping[Key, Float32[np.ndarray, "frames classes"]]
) -> None:
    """Writes `val_metrics.pkl` and `args.yaml` with what `read_official_logits` needs.

    Every session is one batch. Log-probabilities stand for logits: their softmax is the same.

    Raises:
        DataError: a trial has no frames, or values that are not finite.
    """
    for key, logits in emissions.items():
        if not len(logits) or not np.isfinite(logits).all():
            raise DataError(f"the logits of {describe(key)} are none or not all finite. {_REMEDY}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    keys = sorted(emissions, key=lambda key: key[0])  # stable: trials keep their order
    sessions = sorted({session for session, _, _ in keys})
    metrics: dict[str, list[np.ndarray]] = {field: [] for field in _FIELDS}
    for session, members in groupby(keys, key=lambda key: key[0]):
        batch = list(members)
        lengths = np.array([len(emissions[key]) for key in batch], np.int32)
        logits = np.zeros((len(batch), lengths.max(), CLASSES), np.float32)
        for row, key in enumerate(batch):
            logits[row, : lengths[row]] = emissions[key]
        metrics["logits"].append(logits)
        metrics["n_time_steps"].append(lengths)
        metrics["block_nums"].append(np.array([block for _, block, _ in batch]))
        metrics["trial_nums"].append(np.array([trial for _, _, trial in batch]))
        metrics["day_indicies"].append(np.full(len(batch), sessions.index(session)))
    arguments = yaml.safe_dump({"dataset": {"sessions": sessions}})
    for name, content in ((ARGUMENTS, arguments.encode()), (METRICS, pickle.dumps(metrics))):
        with replacing(folder / name) as partial:
            partial.write_bytes(content)


def _read_sessions(path: Path) -> list[str]:
    """The sessions in the order of the official pipeline's configuration."""
    remedy = "Copy args.yaml from the checkpoint folder of the official pipeline next to the logits"
    try:
        sessions = yaml.safe_load(path.read_text(encoding="utf-8"))["dataset"]["sessions"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, LookupError) as error:
        raise data_error(path, "", "", f"cannot be read ({error})", remedy) from error
    if not isinstance(sessions, list) or not sessions:
        raise data_error(path, "", "dataset.sessions", "is no list of names", remedy)
    return [str(session) for session in sessions]


def _batches(path: Path, metrics: Any) -> list[list[np.ndarray]]:
    """The fields of every batch, in the order of `_FIELDS`."""
    if not isinstance(metrics, dict):
        raise data_error(path, "", "", f"holds a {type(metrics).__name__}", _REMEDY)
    columns = [metrics.get(field) for field in _FIELDS]
    for field, column in zip(_FIELDS, columns, strict=True):
        if not isinstance(column, list) or len(column) != len(columns[0] or ()):
            raise data_error(path, "", field, "is no list with an entry for each batch", _REMEDY)
    return [[np.asarray(values) for values in batch] for batch in zip(*columns, strict=True)]


def _trials(
    batch: list[np.ndarray], sessions: list[str], error: Callable[..., DataError]
) -> Iterator[tuple[Key, np.ndarray]]:
    """Every trial's key and logits without padding, once all fields are checked."""
    logits, *columns = batch
    if logits.ndim != 3 or logits.shape[2] != CLASSES or logits.dtype.kind != "f":
        problem = f"is {logits.dtype} {logits.shape}, not floats [batch, frames, {CLASSES}]"
        raise error("logits", problem, _REMEDY)
    for field, column in zip(_FIELDS[1:], columns, strict=True):
        if column.shape != logits.shape[:1] or column.dtype.kind not in "iu":
            problem = f"is {column.dtype} {column.shape}, not {len(logits)} whole numbers"
            raise error(field, problem, _REMEDY)
    frames, _, _, days = columns
    limits = (
        ("n_time_steps", frames, 1, logits.shape[1], "frames"),
        ("day_indicies", days, 0, len(sessions) - 1, "index of a session"),
    )
    for field, column, low, high, what in limits:
        wrong = column[(column < low) | (column > high)]
        if len(wrong):
            raise error(field, f"is {wrong[0]}, outside {low} to {high} ({what})", _REMEDY)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for padded, (length, block, number, day) in zip(logits, rows, strict=True):
        yield (sessions[day], block, number), padded[:length]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # NumPy 1 called it numpy.core.
        module = module.replace("numpy.core", "numpy._core")
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no NumPy array")
        return super().find_class(module, name)


def _unpickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _Unpickler(file).load()
    except _UNREADABLE as error:
        remedy = f"{_REMEDY}; turn tensors into arrays with .cpu().numpy()"
        problem = f"cannot be read ({type(error).__name__}: {error})"
        raise data_error(path, "", "", problem, remedy) from error
