"""What a transducer search needs of a model: three pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from modessm_jax.losses.transducer import Arcs, Joint, joint_hidden, joint_logits, softmax_arcs
from modessm_jax.phonemes import BLANK


class Transducer(NamedTuple):
    """A predictor and a joint network.

    `start(batch) -> (state, output)` stands before the first label and `advance(state, labels) ->
    (state, output)` after one more label of each row: `labels` is int32 `[batch]`, `output` is
    `[batch, d]`, and `state` any tree of arrays with a leading axis of `batch`. Searches advance
    some rows and not others by advancing all and keeping the old state where nothing was said; the
    label there is the blank. `joint(encoder, predictor) -> log_probabilities` maps `[..., d]` and
    `[..., d]` to `[..., classes]`, float32 or better.
    """

    start: Callable[[int], tuple[Any, Any]]
    advance: Callable[[Any, Any], tuple[Any, Any]]
    joint: Callable[[Any, Any], Any]


def make_transducer(
    initial_state: Callable[[int], Any],
    step: Callable[[Any, Any], tuple[Any, Any]],
    joint: Joint,
    arcs: Arcs = softmax_arcs,
) -> Transducer:
    """A transducer of a predictor's two functions and a joint network as it was trained."""

    def start(batch: int) -> tuple[Any, Any]:
        return step(initial_state(batch), jnp.full((batch,), BLANK, jnp.int32))

    return Transducer(start, step, log_probabilities(joint, arcs))


def log_probabilities(joint: Joint, arcs: Arcs = softmax_arcs) -> Callable[[Any, Any], Any]:
    """A `Transducer`'s `joint`: of all classes, what the loss asks of the blank and one label."""

    def of_classes(encoder: Any, predictor: Any) -> Any:
        logits = joint_logits(joint_hidden(encoder, predictor), joint)

        def of_label(label: Any) -> tuple[Any, Any]:
            return arcs.forward(logits, jnp.full(logits.shape[:-1], label))[0]

        labels = jnp.arange(BLANK + 1, logits.shape[-1])
        blank, of_labels = jax.vmap(of_label, out_axes=(None, -1))(labels)
        return jnp.concatenate([blank[..., None], of_labels], axis=-1)

    return of_classes


def select(chosen: Bool[Array, "rows"], new: Any, old: Any) -> Any:
    """Of two trees of arrays `[rows, ...]`, the new one's rows where chosen."""

    def of_leaf(new: Any, old: Any) -> Any:
        return jnp.where(chosen.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)

    return jax.tree.map(of_leaf, new, old)
