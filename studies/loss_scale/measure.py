"""The costs of CTC and RNN-T in theory and before any training.

With V classes that are equally likely everywhere, T frames, and U labels of which no two neighbours
are equal, every alignment has the same probability, and the cost follows from their number.

CTC emits one class in each frame, so an alignment has probability V^-T. The frames are divided into
U runs of labels of at least one frame each, and U + 1 runs of blanks that may be empty: there are
C(T + U, 2U) ways. The cost is T ln V - ln C(T + U, 2U).

RNN-T emits T blanks and U labels, so an alignment has probability V^-(T + U). The last is a blank,
and the labels may stand anywhere before it: C(T + U - 1, U) ways. The cost is (T + U) ln V -
ln C(T + U - 1, U).
"""

import math
from collections.abc import Callable, Collection
from collections.abc import Sequence as Row
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from modessm_jax.losses.cost import RULES, Cost, total
from modessm_jax.losses.ctc import ctc_cost
from modessm_jax.losses.transducer import Joint, transducer_cost
from modessm_jax.models.build import Functional, Predict
from modessm_jax.phonemes import BLANK, CLASSES
from modessm_jax.sequence import Sequence
from modessm_jax.training import objectives

CTC, RNNT = "phoneme", objectives.RNNT
BOTH = {CTC: 1.0, RNNT: 1.0}


class Pair(NamedTuple):
    """A number for CTC and the same for RNN-T."""

    ctc: Any
    rnnt: Any

    @property
    def ratio(self) -> Any:
        """RNN-T's over CTC's."""
        return self.rnnt / self.ctc


class Shape(NamedTuple):
    """The size of an example."""

    frames: int
    labels: int


class Start(NamedTuple):
    """Costs and gradients of newly initialised heads; medians over the initialisations."""

    shape: Shape
    costs: dict[str, Pair]  # by each rule of normalisation; "none" is nats
    uniform: Pair  # nats where every class is equally likely, as the losses compute them
    gradients: Pair  # norms, for the costs per frame, with respect to the encoder features

    @property
    def ratio(self) -> float:
        """RNN-T's nats over CTC's."""
        return self.costs["none"].ratio


def uniform_costs(shape: Shape, classes: int = CLASSES) -> Pair:
    """Nats of an example if all classes are equally likely and neighbouring labels differ."""
    time, count = shape
    return Pair(
        time * math.log(classes) - math.log(math.comb(time + count, 2 * count)),
        (time + count) * math.log(classes) - math.log(math.comb(time + count - 1, count)),
    )


def fresh_rnnt_cost(shape: Shape, classes: int = CLASSES) -> float:
    """Nats where a blank is as likely as all labels together, and these are equally likely.

    A new `TransducerHead` starts there, up to its small random weights.
    """
    time, count = shape
    arcs = time * math.log(2) + count * math.log(2 * (classes - 1))
    return arcs - math.log(math.comb(time + count - 1, count))


def labels_at(share: float, frames: int) -> int:
    """The number of labels for this number per frame, at least one."""
    return max(1, round(share * frames))


def at_start(
    models: Row[Functional], shapes: Collection[Shape], *, examples: int = 8, seed: int = 0
) -> list[Start]:
    """Measures the heads of new models on normally distributed encoder features.

    The features have mean 0 and variance 1, like those after a layer norm. Labels are equally
    likely, and neighbouring labels differ.

    Args:
      models: with a CTC head and a transducer, initialised with different seeds.
      shapes: of the examples; all examples of a batch are of one shape.
      examples: number of examples in the batch of each model.
      seed: of features and labels.

    Raises:
      ValueError: a shape has more labels than frames, or no label.
    """
    for shape in shapes:
        if not 0 < shape.labels <= shape.frames:
            raise ValueError(
                f"{shape.labels} labels in {shape.frames} frames: need at least one label, and as "
                "many frames as labels"
            )
    predict = models[0].predict
    if predict is None:
        raise ValueError("the model has no transducer; build one that has, such as modessm")
    probe = jax.jit(_make_probe(predict))
    return [_start(models, probe, shape, examples, jax.random.key(seed)) for shape in shapes]


def _start(
    models: Row[Functional], probe: Callable[..., Any], shape: Shape, examples: int, key: Any
) -> Start:
    d = models[0].params["head"]["kernel"].shape[0]
    found = []
    for number, model in enumerate(models):
        given = _random_batch(jax.random.fold_in(key, number), shape, examples, d)
        found.append(jax.device_get(probe(model.params, *given)))
    flat = jax.tree.map(jnp.zeros_like, models[0].params)
    uniform = probe(flat, *_random_batch(key, shape, examples, d))[0]["none"]
    costs, gradients = jax.tree.map(lambda *values: float(np.median(values)), *found)
    return Start(shape, costs, Pair(*map(float, uniform)), gradients)


def _random_batch(key: Any, shape: Shape, examples: int, d: int) -> tuple[Any, Any]:
    """Features, [examples, frames, d], and labels, [examples, labels]."""
    of_features, of_labels = jax.random.split(key)
    features = jax.random.normal(of_features, (examples, shape.frames, d))
    # Steps around the circle of labels, none of which comes back to where it was.
    steps = jax.random.randint(of_labels, (examples, shape.labels), 1, CLASSES - 1)
    return features, 1 + jnp.cumsum(steps, axis=1) % (CLASSES - 1)


def _make_probe(predict: Predict) -> Callable[..., tuple[dict[str, Pair], Pair]]:
    def probe(params: Any, features: Any, labels: Any) -> tuple[dict[str, Pair], Pair]:
        given = Sequence(labels, jnp.ones(labels.shape, bool))
        mask = jnp.ones(features.shape[:2], bool)
        head, transducer = params["head"], params["transducer"]

        def ctc(features: Any) -> Cost:
            return ctc_cost(Sequence(_linear(head, features), mask), given)

        def rnnt(features: Any) -> Cost:
            encoder = Sequence(_linear(transducer["encoder"], features), mask)
            joint = Joint(transducer["kernel"], transducer["bias"])
            return transducer_cost(encoder, _predicted(params, predict, labels), joint, given)

        lengths = mask.sum(axis=1), given.lengths

        def measured(name: str, cost_of: Callable[[Any], Cost]) -> tuple[Cost, Any]:
            def loss_of(features: Any) -> tuple[Any, Cost]:
                cost = cost_of(features)
                return total({name: cost}, {name: 1.0}, *lengths, "frames")[0], cost

            gradient, cost = jax.grad(loss_of, has_aux=True)(features)
            return cost, optax.tree.norm(gradient)

        (of_ctc, ctc_norm), (of_rnnt, rnnt_norm) = measured(CTC, ctc), measured(RNNT, rnnt)
        costs = {}
        for rule in RULES:
            _, scalars = total({CTC: of_ctc, RNNT: of_rnnt}, BOTH, *lengths, rule)
            costs[rule] = Pair(scalars[f"loss/{CTC}"], scalars[f"loss/{RNNT}"])
        return costs, Pair(ctc_norm, rnnt_norm)

    return probe


def _linear(layer: Any, x: Any) -> Any:
    return x @ layer["kernel"] + layer["bias"][None, None, :]


def _predicted(params: Any, predict: Predict, labels: Any) -> Any:
    """The predictor's output at every position, [batch, labels + 1, width]."""
    previous = jnp.pad(labels, ((0, 0), (1, 0)), constant_values=BLANK)
    state = predict.initial_state(params, labels.shape[0])
    step = jax.lax.scan(lambda s, label: predict.step(params, s, label), state, previous.T)
    return step[1].swapaxes(0, 1)
