"""Choosing the weights of a word search by the word error rate on val, and on no other split.

The error rate at weights chosen on the same sentences is too optimistic. So val is also cut in two
halves; weights are chosen on each and scored on the other. That cross-validated rate is the one to
report.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from itertools import product, starmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from modessm_jax.evaluation.posteriors import Posteriors
from modessm_jax.runtime.files import write_json
from modessm_jax.search.options import SearchOptions
from modessm_jax.text import normalize, percent, word_edits
from modessm_jax.words.decoder import Task, Vocabulary, search_trials

# The options that decide the errors, beside the weights of the grid.
_WIDTH = ("beam", "beam_threshold", "acoustic_scale")
_CAPTION: dict[str, Any] = {
    "textcoords": "offset points",
    "ha": "center",
    "fontsize": 8,
    "bbox": {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.7},
}


class Weights(NamedTuple):
    """The options of a search that are tuned; see `SearchOptions`."""

    lm_weight: float
    word_score: float
    blank_penalty: float

    @classmethod
    def of(cls, options: SearchOptions) -> "Weights":
        """The weights of a search."""
        return cls(*(getattr(options, name) for name in cls._fields))

    def put_into(self, options: SearchOptions) -> SearchOptions:
        """The same options with these weights."""
        return dataclasses.replace(options, **self._asdict())

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in self._asdict().items())


@dataclasses.dataclass(frozen=True)
class Grid:
    """The values of each weight to try, in all combinations.

    `acoustic_scale` is no axis: scaling acoustics, n-gram and word score alike changes no ranking.

    Raises:
        ValueError: an axis has no values, or they do not rise.
    """

    lm_weight: tuple[float, ...] = (0.25, 0.5, 1.0, 1.5, 2.0)
    word_score: tuple[float, ...] = (-2.0, 0.0, 2.0)
    blank_penalty: tuple[float, ...] = (0.3, 1.0, 7.0, 90.0)

    def __post_init__(self) -> None:
        for name, values in zip(Weights._fields, self.axes, strict=True):
            if not values or list(values) != sorted(set(values)):
                raise ValueError(f"{name} = {values}: give values to try, each above the last")

    @property
    def axes(self) -> tuple[tuple[float, ...], ...]:
        """The values of each axis."""
        return self.lm_weight, self.word_score, self.blank_penalty

    def points(self) -> list[Weights]:
        """Every point of the grid, the last axis running fastest."""
        return list(starmap(Weights, product(*self.axes)))


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Word errors of every sentence of val at every point of a grid."""

    grid: Grid
    errors: Int[np.ndarray, "lm_weights word_scores blank_penalties sentences"]
    words: Int[np.ndarray, "sentences"]
    second: Bool[np.ndarray, "sentences"]  # whether a sentence is in the second half

    @cached_property
    def best(self) -> Weights:
        """The weights with the fewest errors on all of val: for other splits."""
        return self._choose(np.ones_like(self.second))

    @cached_property
    def crossed(self) -> list[Weights]:
        """For each sentence of val the weights chosen on the half it is not in."""
        first, second = self._choose(self.second), self._choose(~self.second)
        return [second if late else first for late in self.second]

    @property
    def best_rate(self) -> float:
        """The word error rate of `best` on the very sentences it was chosen on."""
        return float(self.errors[self.index(self.best)].sum() / self.words.sum())

    @property
    def crossed_rate(self) -> float:
        """The word error rate where each sentence is searched with its weights of `crossed`."""
        each = (self.errors[*self.index(w), i] for i, w in enumerate(self.crossed))
        return float(sum(each) / self.words.sum())

    @property
    def edges(self) -> list[str]:
        """The weights whose best value is the first or last tried: the grid may be too small."""
        errors, best = self.errors.sum(axis=-1), self.index(self.best)
        return [
            name
            for axis, name in enumerate(Weights._fields)
            if errors.shape[axis] > 2
            and best[axis] in (0, errors.shape[axis] - 1)
            and errors[best] < np.delete(errors, [0, -1], axis=axis).min()
        ]

    def index(self, weights: Weights) -> tuple[int, ...]:
        """The index of a point in the grid, one number for each axis."""
        return tuple(axis.index(w) for axis, w in zip(self.grid.axes, weights, strict=True))

    def _choose(self, sentences: Bool[np.ndarray, "sentences"]) -> Weights:
        """The point with the fewest errors; of several, the one nearest to their middle."""
        errors = self.errors[..., sentences].sum(axis=-1)
        tied = np.argwhere(errors == errors.min())
        nearest = np.square(tied - tied.mean(axis=0)).sum(axis=1).argmin()
        return self.grid.points()[np.ravel_multi_index(tuple(tied[nearest]), errors.shape)]


def tune(
    vocabulary: Vocabulary,
    val: Posteriors,
    options: SearchOptions,
    grid: Grid,
    folder: Path,
    processes: int = 1,
) -> tuple[Tuning, Path]:
    """Searches val at every point of the grid, unless `folder` has the results of an earlier call.

    Args:
        vocabulary: the words to recognise.
        val: its posteriors.
        options: of the search; the weights in it are replaced by those of the grid.
        grid: the weights to try.
        folder: holds `tuning_<checksum>.json` and `.png` for each tuning; made if need be. A change
            of anything that the errors depend on changes the checksum.
        processes: to search with.

    Returns:
        The tuning, and its picture.

    Raises:
        ValueError: the split is not val, has no sentences, or too few to make two halves.
    """
    facts = _origin(vocabulary, val, options, grid)
    checksum = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    file = folder / f"tuning_{checksum}.json"
    picture = file.with_suffix(".png")
    if file.exists():
        return _read(file), picture
    tuning = _measure(vocabulary, val, options, grid, processes)
    folder.mkdir(parents=True, exist_ok=True)
    _draw(picture, tuning)
    figures = {"best": tuning.best._asdict(), "best_rate": tuning.best_rate}
    figures["crossed_rate"] = tuning.crossed_rate
    arrays = {name: getattr(tuning, name).tolist() for name in ("errors", "words", "second")}
    write_json(file, {"from": facts, **figures, **arrays})
    return tuning, picture


def _measure(
    vocabulary: Vocabulary, val: Posteriors, options: SearchOptions, grid: Grid, processes: int
) -> Tuning:
    if val.split != "val":
        raise ValueError(
            f"weights are tuned on val, not on {val.split}, whose error rate would then be no test "
            "of them"
        )
    if not val.sentences:
        raise ValueError("weights cannot be tuned: no trial of val has a sentence_label")
    spoken = val.sentences
    sentences = [normalize(sentence) for sentence in spoken.values()]
    second = halves(sentences)
    options = dataclasses.replace(options, nbest=1)
    points = [weights.put_into(options) for weights in grid.points()]
    tasks = [Task(trial, point) for point in points for trial in spoken]
    print(f"tuning: {len(points)} choices of weights, {len(sentences)} sentences")
    counts = [
        word_edits(spoken[task.trial], " ".join(found.hypotheses[0].words)).count
        for task, found in zip(tasks, search_trials(vocabulary, val, tasks, processes), strict=True)
    ]
    shape = (*map(len, grid.axes), len(sentences))
    words = np.array([len(sentence.split()) for sentence in sentences], np.int64)
    return Tuning(grid, np.array(counts, np.int64).reshape(shape), words, second)


def halves(sentences: Sequence[str]) -> Bool[np.ndarray, "sentences"]:
    """Cuts sentences in two by a checksum of their text, so that equal ones stay together.

    Raises:
        ValueError: all sentences are the same.
    """
    order = sorted(set(sentences), key=lambda text: hashlib.sha256(text.encode()).digest())
    if len(order) < 2:
        raise ValueError("val holds fewer than two different sentences; weights cannot be tuned")
    second = set(order[len(order) // 2 :])
    return np.array([sentence in second for sentence in sentences])


def _origin(
    vocabulary: Vocabulary, val: Posteriors, options: SearchOptions, grid: Grid
) -> dict[str, Any]:
    """All that a tuning depends on, ready for JSON: checksums of the large parts, and the rest."""
    words = json.dumps(dict(vocabulary.lexicon.words))
    return {
        "posteriors": val.digest,
        "lexicon": hashlib.sha256(words.encode()).hexdigest(),
        "lm": None if vocabulary.lm is None else _checksum(vocabulary.lm),
        "width": {name: getattr(options, name) for name in _WIDTH},
        "grid": dataclasses.asdict(grid),
    }


def _checksum(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _read(file: Path) -> Tuning:
    kept = json.loads(file.read_text(encoding="utf-8"))
    grid = Grid(**{axis: tuple(values) for axis, values in kept["from"]["grid"].items()})
    types = {"errors": np.int64, "words": np.int64, "second": bool}
    return Tuning(grid, *(np.array(kept[name], dtype) for name, dtype in types.items()))


def _draw(path: Path, tuning: Tuning) -> None:
    """Draws the word error rate over the grid: one map for each blank penalty, as a PNG.

    A circle marks the weights chosen on all of val, crosses those of its halves.
    """
    rates = 100 * tuning.errors.sum(axis=-1) / tuning.words.sum()
    grid = tuning.grid
    columns = len(grid.blank_penalty)
    figure = Figure(figsize=(2 + 3.6 * columns, 4.2), dpi=100, layout="constrained")
    figure.suptitle(
        f"word error rate on val: {percent(tuning.crossed_rate)} cross-validated, "
        f"{percent(tuning.best_rate)} at the weights chosen on all of it",
        fontsize=11,
    )
    every = figure.subplots(1, columns, squeeze=False)[0]
    norm, cmap = Normalize(rates.min(), max(rates.max(), 1e-9)), "viridis_r"
    for column, (axes, penalty) in enumerate(zip(every, grid.blank_penalty, strict=True)):
        shown = rates[:, :, column]
        axes.imshow(shown, aspect="auto", origin="lower", cmap=cmap, norm=norm)
        axes.set_title(f"blank penalty {penalty:g}", fontsize=10)
        axes.set_xticks(range(len(grid.word_score)), [f"{v:g}" for v in grid.word_score])
        axes.set_yticks(range(len(grid.lm_weight)), [f"{v:g}" for v in grid.lm_weight])
        axes.set_xlabel("word score, nats", fontsize=9)
        for (y, x), value in np.ndenumerate(shown):
            axes.annotate(f"{value:.2f}", (x, y), (0, 7), **_CAPTION)
    marks = [(tuning.best, "o"), *((weights, "x") for weights in set(tuning.crossed))]
    for weights, marker in marks:
        y, x, column = tuning.index(weights)
        every[column].plot(x, y, marker, color="#cc3311")
    every[0].set_ylabel("n-gram weight", fontsize=9)
    figure.colorbar(ScalarMappable(norm, cmap), ax=list(every), label="%")
    figure.savefig(path, format="png")
