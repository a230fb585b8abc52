"""What `benchmarks.word_search` measures, as tables and a picture."""

import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.losses.report import table
from modessm_jax.search.options import SearchOptions
from modessm_jax.text import Edits, bootstrap_interval, percent, total

FRAME_SECONDS = 0.08
SPEED = (
    "WER",
    "frames a second",
    "real-time factor",
    "frame p50, ms",
    "frame p95, ms",
    "finish p95, ms",
    "shown words changed",
)


@dataclass(frozen=True)
class Measured:
    """One pass over trials, fed frame by frame; seconds of the processor."""

    edits: list[Edits]
    frame_seconds: np.ndarray
    finish_seconds: np.ndarray
    equal: int  # of the first sentences, those whose result is that of the whole
    changed: int  # shown words that were taken back or replaced
    stable: int  # sentences of which no shown word changed

    @property
    def rate(self) -> float:
        return total(self.edits).rate

    @property
    def seconds_a_frame(self) -> float:
        return (self.frame_seconds.sum() + self.finish_seconds.sum()) / len(self.frame_seconds)


@dataclass(frozen=True)
class Findings:
    """All that is measured."""

    rate: float  # greedy phoneme error rate of all sentences
    missing: int  # words of the sentences that are not in the vocabulary
    vocabulary: int
    order: int
    tuned_on: int
    subset: int
    options: SearchOptions
    loading: float
    loaded: float
    peak: float
    compared: int
    whole: Measured
    peers: dict[str, tuple[list[Edits], float]]  # and seconds a frame
    beams: dict[int, Measured]
    wide: int  # the beam of the thresholds
    thresholds: dict[float, Measured]
    weights: dict[float, float]
    rates: dict[float, tuple[float, float]]  # by greedy PER: WER, and that of the peer


def errors_line(name: str, edits: list[Edits], seconds: float) -> list[str]:
    """One decoder over all sentences."""
    counts = total(edits)
    low, high = bootstrap_interval(edits, seed=0)
    return [
        name, percent(counts.rate), f"{percent(low)} to {percent(high)}",
        str(counts.substitutions), str(counts.insertions), str(counts.deletions),
        f"{1e3 * seconds:.2f}",
    ]  # fmt: skip


def speed_line(width: float, measured: Measured) -> list[str]:
    """One beam or threshold: errors, speed and latency."""
    frame = 1e3 * np.percentile(measured.frame_seconds, [50, 95])
    seconds = measured.seconds_a_frame
    return [
        f"{width:g}", percent(measured.rate),
        f"{1 / seconds:,.0f}", f"{seconds / FRAME_SECONDS:.4f}",
        f"{frame[0]:.2f}", f"{frame[1]:.2f}",
        f"{1e3 * np.percentile(measured.finish_seconds, 95):.1f}",
        percent(measured.changed / sum(each.reference_length for each in measured.edits)),
    ]  # fmt: skip


def report(found: Findings) -> str:
    """The findings as text."""
    whole, options = found.whole, found.options
    words = total(whole.edits).reference_length
    about = (
        "Emissions are synthetic: real sentences, a real decoder's confusions, no neural data.",
        f"{len(whole.edits)} T15 sentences, {words:,} words of which {found.missing} are not in "
        f"the vocabulary; {len(whole.frame_seconds):,} frames of 80 ms; greedy phoneme error rate "
        f"{percent(found.rate)}",
        f"{found.vocabulary:,} words, n-gram of order {found.order}",
        f"tuned on {found.tuned_on} other sentences (T12): lm_weight {options.lm_weight}, "
        f"word_score {options.word_score}, blank_penalty {options.blank_penalty}",
        f"one core ({platform.machine()}) that others used too; seconds are the processor's own",
        f"the n-gram and the tree are ready after {found.loading:.1f} s; resident memory is then "
        f"{found.loaded:.2f} GB, and at most {found.peak:.2f} GB up to beam {max(found.beams)}",
    )
    small = f"{found.subset} sentences"
    return "\n\n".join(
        (
            "\n".join(f"- {line}" for line in about),
            "## All sentences",
            table(
                ("search", "WER", "95 % interval", "substitutions", "insertions", "deletions",
                 "ms a frame"),
                (
                    *(errors_line(name, *peer) for name, peer in found.peers.items()),
                    errors_line(
                        f"ours, beam {options.beam}", whole.edits, whole.seconds_a_frame
                    ),
                ),
            ),
            "## Streaming",
            f"Fed frame by frame, beam {options.beam}: {whole.equal} of {found.compared} results "
            f"have all sentences and scores of the whole. For {words:,} words {whole.changed} "
            f"shown ones were taken back or replaced ({percent(whole.changed / words)}); in "
            f"{percent(whole.stable / len(whole.edits))} of the sentences no shown word changed.",
            f"## Beams ({small})",
            table(
                ("beam", *SPEED),
                (speed_line(beam, measured) for beam, measured in found.beams.items()),
            ),
            f"## Nats behind the best at which a hypothesis is dropped ({small}, beam "
            f"{found.wide}; elsewhere {options.beam_threshold:g})",
            table(
                ("beam_threshold", *SPEED),
                (speed_line(nats, measured) for nats, measured in found.thresholds.items()),
            ),
            f"## Weight of the n-gram ({small}, beam {options.beam}); 0 is the lexicon alone",
            table(
                ("lm_weight", "WER"),
                ((f"{weight}", percent(rate)) for weight, rate in found.weights.items()),
            ),
            f"## Phoneme error rate ({small}, beam {options.beam}, weights as above)",
            table(
                ("greedy PER", "WER", "WER of flashlight's defaults"),
                ((percent(rate), *map(percent, pair)) for rate, pair in found.rates.items()),
            ),
        )
    ) + "\n"  # fmt: skip


def draw(path: Path, found: Findings) -> None:
    """Errors against beam, weight and phoneme errors; time against beam."""
    figure = Figure(figsize=(13, 3.4), dpi=100, layout="constrained")
    beam, weight, rate, speed = figure.subplots(1, 4)
    beams = list(found.beams)
    beam.plot(beams, [each.rate for each in found.beams.values()], marker="o")
    beam.set(xlabel="beam", ylabel="word error rate", xscale="log")
    weight.plot(list(found.weights), list(found.weights.values()), marker="o")
    weight.set(xlabel="weight of the n-gram", ylabel="word error rate")
    ours, theirs = zip(*found.rates.values(), strict=True)
    rate.plot(list(found.rates), ours, marker="o", label="ours")
    rate.plot(list(found.rates), theirs, marker="s", label="flashlight's defaults")
    rate.set(xlabel="greedy phoneme error rate", ylabel="word error rate")
    rate.legend()
    milliseconds = [1e3 * each.seconds_a_frame for each in found.beams.values()]
    speed.plot(beams, milliseconds, marker="o")
    speed.set(xlabel="beam", ylabel="ms a frame", xscale="log", yscale="log")
    for axes in (beam, weight, rate):
        axes.set_ylim(bottom=0)
    for axes in (beam, weight, rate, speed):
        axes.grid(alpha=0.3)
    figure.savefig(path)
