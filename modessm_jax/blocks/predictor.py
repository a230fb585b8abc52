"""The predictor of a transducer: a network over the labels emitted so far."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from modessm_jax.blocks.block import Dropout
from modessm_jax.blocks.convolution import depthwise_conv
from modessm_jax.phonemes import BLANK, CLASSES

CONTEXT = 2  # labels that the output of a stateless predictor depends on


class Predictor(nnx.Module):
    """Labels to vectors of the joint network's width `d`, one after each label.

    Run whole for training, or label by label for decoding. A sequence starts with one blank:
    `step(initial_state(batch), BLANK)` gives the output at position 0. The blanks of a search are
    not given to the predictor. `rate` is the probability of `Dropout` in training.
    """

    def __init__(self, d: int, *, rate: float, dtype: Any, rngs: nnx.Rngs):
        self.d, self.dtype = d, dtype
        self.embedding = nnx.Param(nnx.initializers.normal(1.0)(rngs.params(), (CLASSES, d)))
        self.dropout = Dropout(rate)
        self.out = nnx.Linear(d, d, dtype=dtype, rngs=rngs)

    def __call__(
        self, labels: Int[Array, "batch labels"], *, key: jax.Array | None = None
    ) -> Float[Array, "batch labels+1 d"]:
        """Output after none, one, ... and all of the labels; `key` turns on dropout.

        Outputs beyond an example's last label are finite and mean nothing.
        """
        labels = jnp.pad(labels, ((0, 0), (1, 0)), constant_values=BLANK)
        _, hidden = self.read(self.initial_state(labels.shape[0]), labels)
        return self.out(self.dropout(hidden, key))

    def step(self, state: Any, label: Int[Array, "batch"]) -> tuple[Any, Float[Array, "batch d"]]:
        """The output after one more label of each example."""
        state, hidden = self.read(state, label[:, None])
        return state, self.out(hidden[:, 0])

    def initial_state(self, batch: int) -> Any:
        """The state before the blank that starts `batch` sequences."""
        raise TypeError(f"{type(self).__name__} does not define initial_state")

    def read(
        self, state: Any, labels: Int[Array, "batch labels"]
    ) -> tuple[Any, Float[Array, "batch labels d"]]:
        """The hidden vector after each of the next labels, any number of them."""
        raise TypeError(f"{type(self).__name__} does not define read")

    def embed(self, labels: Int[Array, "batch labels"]) -> Float[Array, "batch labels d"]:
        """The vector of each label."""
        # A product with ones and zeros: the gradient of a gather is a scatter, whose sums come out
        # differently each time on a GPU. Full precision keeps the vectors as they are.
        chosen = jax.nn.one_hot(labels, CLASSES, dtype=self.dtype)
        table = self.embedding[...].astype(self.dtype)
        return jnp.dot(chosen, table, precision=jax.lax.Precision.HIGHEST)


class StatelessPredictor(Predictor):
    """Depends on the last `CONTEXT` labels: embeddings, a depthwise convolution, SiLU, linear.

    Ghodsi et al. 2020, "RNN-transducer with stateless prediction network", with a second label as
    in Botros et al. 2021, "Tied & reduced RNN-T decoder". Next to no work in decoding.
    """

    def __init__(self, d: int, *, rate: float, dtype: Any, rngs: nnx.Rngs):
        super().__init__(d, rate=rate, dtype=dtype, rngs=rngs)
        init = nnx.initializers.normal(CONTEXT**-0.5)
        self.taps = nnx.Param(init(rngs.params(), (CONTEXT, d)))

    def initial_state(self, batch: int) -> Any:
        """The past labels that the next output depends on."""
        return jnp.full((batch, CONTEXT - 1), BLANK, jnp.int32)

    def read(
        self, state: Any, labels: Int[Array, "batch labels"]
    ) -> tuple[Any, Float[Array, "batch labels d"]]:
        both = jnp.concatenate([state, labels], axis=1)
        filtered = depthwise_conv(self.embed(both), self.taps[...].astype(self.dtype))
        return both[:, labels.shape[1] :], jax.nn.silu(filtered)


class LstmPredictor(Predictor):
    """Depends on all labels: embeddings, one LSTM layer of width `d`, linear (Graves 2012)."""

    def __init__(self, d: int, *, rate: float, dtype: Any, rngs: nnx.Rngs):
        super().__init__(d, rate=rate, dtype=dtype, rngs=rngs)
        self.cell = nnx.OptimizedLSTMCell(d, d, dtype=dtype, rngs=rngs)

    def initial_state(self, batch: int) -> Any:
        """The float32 cell and hidden vectors."""
        nothing = jnp.zeros((batch, self.d), jnp.float32)
        return nothing, nothing

    def read(
        self, state: Any, labels: Int[Array, "batch labels"]
    ) -> tuple[Any, Float[Array, "batch labels d"]]:
        state, hidden = jax.lax.scan(
            lambda state, x: self.cell(state, x), state, self.embed(labels).swapaxes(0, 1)
        )
        return state, hidden.swapaxes(0, 1)


PREDICTORS: dict[str, Callable[..., Predictor]] = {
    "stateless": StatelessPredictor,
    "lstm": LstmPredictor,
}


def make_predictor(kind: str, d: int, *, rate: float, dtype: Any, rngs: nnx.Rngs) -> Predictor:
    """The predictor a config names.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in PREDICTORS:
        raise ValueError(f"predictor = {kind!r}: choose one of {sorted(PREDICTORS)}")
    return PREDICTORS[kind](d, rate=rate, dtype=dtype, rngs=rngs)
