"""Beam search of a transducer, synchronous with the length of the alignments.

After i steps every hypothesis has taken t blanks and u labels with t + u = i (Saon, Tüske and
Audhkhasi 2020, "Alignment-length synchronous decoding for RNN transducer"). Two hypotheses with the
same labels are then in the same cell of the lattice, and are merged by adding their probabilities.
A beam wide enough to hold every label sequence is therefore exact: it computes the same sums as the
loss.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from modessm_jax.decoding.transducer import Transducer, select
from modessm_jax.losses.logspace import IMPOSSIBLE, ZERO, log_add
from modessm_jax.phonemes import BLANK
from modessm_jax.sequence import Sequence


class Fusion(NamedTuple):
    """A language model over labels whose log probability, times `weight`, is added to the search's.

    `start(batch) -> state`; `score(state) -> [batch, classes]`, natural logarithms of the next
    label's probability, of which the blank's is ignored; `advance(state, labels) -> state`, with
    `state` and `labels` as in `Transducer`.
    """

    start: Callable[[int], Any]
    score: Callable[[Any], Any]
    advance: Callable[[Any, Any], Any]
    weight: float


@struct.dataclass
class BeamResult:
    """The n-best label sequences of each example, all different, best `fused` score first.

    Where the search found fewer sequences than the beam is wide, the rest have length 0 and scores
    of -inf. Where the network gave NaN, they have length 0 and scores of NaN.
    """

    ids: Any  # int32 [batch, width, max_labels], 0 after the last label
    lengths: Any  # int32 [batch, width]
    scores: Any  # [batch, width], log probability of the labels, summed over the alignments kept
    fused: Any  # [batch, width], the same plus the weighted language model


class _Hypotheses(NamedTuple):
    """Label sequences of a beam, `[batch, width, ...]`; an empty entry scores `ZERO` or less."""

    labels: Any  # int32 [batch, width, max_labels]
    count: Any  # int32 [batch, width]
    score: Any  # log probability of the walks into the cell where the hypothesis is
    prior: Any  # weighted log probability of the language model

    @property
    def fused(self) -> Any:
        return self.score + self.prior


class _Context(NamedTuple):
    """Predictor and language model after the labels of each hypothesis, `[batch * width, ...]`."""

    predictor: Any
    output: Any
    language: Any


class _Beam(NamedTuple):
    """All that passes from one step to the next."""

    live: _Hypotheses
    context: _Context
    done: _Hypotheses


def beam(
    transducer: Transducer,
    encoder: Sequence,
    *,
    width: int,
    max_labels: int,
    fusion: Fusion | None = None,
) -> BeamResult:
    """The most probable label sequences, each summed over its alignments.

    Exact but for what the beam drops: a dropped hypothesis takes its alignments with it, so scores
    are at most the log probability that `losses.transducer` gives.

    Args:
      transducer: the predictor and joint network.
      encoder: `[batch, frames, d]`, at least one frame wide.
      width: hypotheses kept at each step, and sequences returned.
      max_labels: longer sequences are not considered.
      fusion: a language model to search with.

    Raises:
      ValueError: `width` or `max_labels` is below 1.
    """
    if width < 1 or max_labels < 1:
        raise ValueError(f"width = {width}, max_labels = {max_labels}: give at least 1 of each")
    frames, lengths = encoder.masked().values, encoder.lengths
    batch, time = encoder.mask.shape
    exact = jnp.promote_types(frames.dtype, jnp.float32)

    def extensions(now: _Beam, number: Any) -> tuple[Any, Any]:
        """Log probabilities [batch, width, classes] in each hypothesis's cell, and their priors."""
        here = _take(frames, jnp.clip(number - now.live.count, 0, time - 1))
        scores = transducer.joint(here, now.context.output.reshape(batch, width, -1))
        scores = jnp.maximum(scores.astype(exact), ZERO)
        prior = now.live.prior[..., None]
        if fusion is not None:
            of_labels = fusion.score(now.context.language).reshape(scores.shape).astype(exact)
            prior = prior + fusion.weight * jnp.maximum(of_labels, ZERO)
        return scores, jnp.broadcast_to(prior, scores.shape)

    def advance(context: _Context, parent: Any, label: Any) -> _Context:
        """The context of each hypothesis's parent, after the label where one was emitted."""
        rows = (jnp.arange(batch)[:, None] * width + parent).reshape(-1)
        label = label.reshape(-1)
        old = jax.tree.map(lambda leaf: leaf[rows], context)
        language = () if fusion is None else fusion.advance(old.language, label)
        new = _Context(*transducer.advance(old.predictor, label), language)
        return select(label != BLANK, new, old)

    def step(now: _Beam, number: Any) -> tuple[_Beam, None]:
        live = now.live
        scores, priors = extensions(now, number)
        by_blank = live.score + scores[..., BLANK]
        by_label = live.score[..., None] + scores[..., BLANK + 1 :]
        by_label = jnp.where((live.count < max_labels)[..., None], by_label, ZERO)
        leaves = number - live.count == lengths[:, None] - 1
        done = _best(now.done, live._replace(score=jnp.where(leaves, by_blank, ZERO)))
        by_blank, by_label = _merge(live, jnp.where(leaves, ZERO, by_blank), by_label)

        candidates = jnp.concatenate([by_blank, by_label.reshape(batch, -1)], axis=1)
        of_labels = priors[..., BLANK + 1 :].reshape(batch, -1)
        priors = jnp.concatenate([live.prior, of_labels], axis=1)
        _, index = jax.lax.top_k(candidates + priors, width)
        labels = scores.shape[-1] - 1
        emitted = index >= width
        parent = jnp.where(emitted, (index - width) // labels, index)
        label = jnp.where(emitted, BLANK + 1 + (index - width) % labels, BLANK)
        count = _take(live.count, parent)
        ends = jnp.arange(max_labels)[None, None, :] == count[..., None]
        live = _Hypotheses(
            labels=jnp.where(ends, label[..., None], _take(live.labels, parent)),
            count=count + emitted,
            score=jnp.maximum(_take(candidates, index), ZERO),
            prior=_take(priors, index),
        )
        return _Beam(live, advance(now.context, parent, label), done), None

    nothing = _Hypotheses(
        labels=jnp.full((batch, width, max_labels), BLANK, jnp.int32),
        count=jnp.zeros((batch, width), jnp.int32),
        score=jnp.full((batch, width), ZERO, exact),
        prior=jnp.zeros((batch, width), exact),
    )
    begins = (jnp.arange(width)[None, :] == 0) & (lengths > 0)[:, None]
    live = nothing._replace(score=jnp.where(begins, 0, nothing.score))
    language = () if fusion is None else fusion.start(batch * width)
    first = _Beam(live, _Context(*transducer.start(batch * width), language), nothing)
    last, _ = jax.lax.scan(step, first, jnp.arange(time + max_labels, dtype=jnp.int32))

    done = last.done
    found = done.fused > IMPOSSIBLE
    missing = done.fused <= IMPOSSIBLE  # NaN is neither: it is passed on, not hidden
    return BeamResult(
        ids=jnp.where(found[..., None], done.labels, BLANK),
        lengths=jnp.where(found, done.count, 0),
        scores=jnp.where(missing, -jnp.inf, done.score),
        fused=jnp.where(missing, -jnp.inf, done.fused),
    )


def _merge(live: _Hypotheses, by_blank: Any, by_label: Any) -> tuple[Any, Any]:
    """Adds each extension by a label that another hypothesis already has to the blank of that one.

    Hypotheses differ in their labels, so that only one of them, by one label, can become the same
    as another that takes the blank.
    """
    batch, _, max_labels = live.labels.shape
    last = jnp.arange(max_labels)[None, None, :] == live.count[..., None] - 1
    before = jnp.where(last, BLANK, live.labels)
    same = (before[:, :, None] == live.labels[:, None]).all(axis=-1)
    exists = live.fused > IMPOSSIBLE
    same &= (exists & (live.count > 0))[:, :, None] & exists[:, None]
    label = jnp.where(last, live.labels, 0).sum(axis=-1)
    flat = by_label.reshape(batch, -1)
    source = same.argmax(axis=2) * by_label.shape[2] + label - BLANK - 1
    source = jnp.where(same.any(axis=2), source, flat.shape[1])
    merged = jnp.take_along_axis(flat, source, axis=1, mode="fill", fill_value=ZERO)
    by_blank, _ = log_add(by_blank, merged)
    # An index past the end, where nothing merges, is dropped by the scatter.
    flat = flat.at[jnp.arange(batch)[:, None], source].set(ZERO, mode="drop")
    return by_blank, flat.reshape(by_label.shape)


def _best(a: _Hypotheses, b: _Hypotheses) -> _Hypotheses:
    """The best of both, as many as in one, in order."""
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), a, b)
    _, index = jax.lax.top_k(both.fused, a.count.shape[1])
    return jax.tree.map(lambda leaf: _take(leaf, index), both)


def _take(x: Any, index: Any) -> Any:
    """[batch, n, ...] at [batch, k] -> [batch, k, ...]."""
    return jax.vmap(lambda x, index: x[index])(x, index)
