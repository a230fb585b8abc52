"""A stream against decoding whole trials: log-probabilities, phonemes, words and their times."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import modessm_jax
from modessm_jax.data.recordings import read_recordings
from modessm_jax.evaluation.posteriors import posteriors_of
from modessm_jax.phonemes import symbols
from modessm_jax.runs.load import load_run

COMPARED = ("phonemes", "times", "words", "word_times")


class Equality(NamedTuple):
    """What was compared, and what differed."""

    trials: int
    frames: int
    phonemes: int
    words: int
    largest: float  # difference of a log-probability of the CTC head
    differ: Counter[str]  # trials that differ, by what differs


def pieces(bins: np.ndarray, random: np.random.Generator, most: int) -> Iterator[np.ndarray]:
    """The bins in pieces of 1 to `most`."""
    while len(bins):
        size = int(random.integers(1, most + 1))
        yield bins[:size]
        bins = bins[size:]


def compare(
    workdir: Path, *, most: int, trials: int | None, seed: int, head: str, width: int, **words: Any
) -> Equality:
    """Pushes val trials of a run in random pieces, in the order of recording, and decodes them.

    The log-probabilities and the greedy phonemes are compared with those of the evaluation, in
    padded batches; phonemes, words and times with `Decoder.decode`. Words that the stream gave for
    certain are compared with its own sentence.

    Args:
        workdir: of the run.
        most: bins of the largest piece; the smallest has one.
        trials: to compare at most; None for all.
        seed: of the pieces.
        head: "ctc" or "rnnt".
        width: of the transducer's beam.
        words: lexicon, n-gram and options of `modessm_jax.load`, if any.
    """
    run = load_run(workdir)
    decoder = modessm_jax.load(workdir, head=head, width=width, **words)
    data = run.config["data"]
    stored = read_recordings(
        data["root"], "val", sessions=data["sessions"], exclude=data.get("exclude", ())
    )
    keys = [(trial.session, trial.block, trial.number) for trial in stored.trials]
    order = sorted(range(len(keys)), key=lambda index: keys[index])[:trials]
    batched = {each.key: each for each in posteriors_of(run, "val").trials}
    greedy = batched
    if head == "rnnt":
        greedy = {each.key: each for each in posteriors_of(run, "val", head=head).trials}
    sessions = [keys[index][0] for index in order]
    features = [stored.features(index) for index in order]
    whole = decoder.decode(features, sessions)
    streams = {session: decoder.stream(session) for session in dict.fromkeys(sessions)}
    random = np.random.default_rng(seed)
    kinds = (*COMPARED, "greedy phonemes", "certain words")
    differ: Counter[str] = Counter(dict.fromkeys(kinds, 0))
    largest, frames = 0.0, 0
    for index, session, bins, expected in zip(order, sessions, features, whole, strict=True):
        stream, key = streams[session], keys[index]
        news = [stream.push(piece) for piece in pieces(bins, random, most)]
        news.append(stream.flush())
        decoded = stream.finish()
        stream.reset()
        scores = np.concatenate([each.frames for each in news])
        frames += len(scores)
        if scores.shape != batched[key].frames.shape:
            raise SystemExit(f"{key}: {len(scores)} frames, not {len(batched[key].frames)}")
        largest = max(largest, float(np.abs(scores - batched[key].frames).max(initial=0.0)))
        differ.update(
            part for part in COMPARED if getattr(decoded, part) != getattr(expected, part)
        )
        if width == 1:
            same = list(decoded.phonemes) == symbols(greedy[key].phonemes)
            differ["greedy phonemes"] += not same
        certain = tuple(word.word for each in news for word in each.words)
        differ["certain words"] += decoded.words[: len(certain)] != certain
    said = sum(len(each.phonemes) for each in whole), sum(len(each.words) for each in whole)
    return Equality(len(order), frames, *said, largest, differ)
