"""The single-scale Conformer CTC decoder: one strided pathway of the multi-scale decoder, alone."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Int

from modessm_jax.blocks.block import Serial, require_whole_steps, split
from modessm_jax.blocks.conformer import ConformerBlock
from modessm_jax.blocks.convolution import StridedConv, make_smoothing
from modessm_jax.models.inputs import SessionAdaptation, hide
from modessm_jax.models.outputs import Outputs, frame_norm
from modessm_jax.phonemes import CLASSES
from modessm_jax.sequence import Sequence


class SingleScale(nnx.Module):
    """Features of a session to phoneme logits.

    Smoothing, session adaptation, a learned vector in place of time-masked bins, a strided
    convolution, `layers` Conformer blocks (Gulati et al. 2020), linear CTC head, and a second one
    half way up if `interctc` (Lee and Watanabe 2021).

    `stride`, `patch` (kernel of the strided convolution), `smoothing` (sigma; 0: none), `chunk` and
    `left` are in bins. A `causal` model streams: `step` takes any multiple of `block_size` bins, a
    chunk, and gives what the whole call gives.
    """

    delay = 0  # frames by which a stream lags

    def __init__(
        self,
        *,
        channels: int,
        sessions: int,
        hides_bins: bool,
        d: int,
        layers: int,
        heads: int,
        ff: int,
        kernel: int,
        stride: int,
        patch: int,
        dropout: float,
        stochastic_depth: float,
        session: str,
        smoothing: float,
        interctc: bool,
        head_scale: float,
        causal: bool,
        chunk: int,
        left: int,
        remat: str = "none",
        dtype: str,
        rngs: nnx.Rngs,
    ):
        if layers < 1:
            raise ValueError(f"layers = {layers}: give at least 1")
        if causal and (chunk < 1 or chunk % stride or left % chunk):
            raise ValueError(
                f"causal decoding needs chunk = {chunk} to be at least 1 and a multiple of stride ="
                f" {stride}, and left = {left} to be a multiple of chunk"
            )
        compute: Any = jnp.dtype(dtype)
        built: Any = dict(dtype=compute, rngs=rngs)
        self.causal, self.block_size = causal, chunk if causal else stride
        self.smoothing = make_smoothing(channels, smoothing, causal=causal, dtype=compute)
        self.adaptation = SessionAdaptation(
            session, channels=channels, sessions=sessions, dtype=compute
        )
        self.mask_vector = nnx.Param(jnp.zeros((channels,))) if hides_bins else None
        stem = StridedConv(
            channels, d, kernel=patch, stride=stride, causal=causal, dropout=dropout, **built
        )
        sizes: Any = dict(heads=heads, ff=ff, kernel=kernel, rate=dropout)
        sizes |= dict(chunk=chunk // stride if causal else None, left=left // stride)
        paths = [stochastic_depth * (layer + 1) / layers for layer in range(layers)]
        blocks = [ConformerBlock(d, drop_path=path, **sizes, **built) for path in paths]
        middle = (layers + 1) // 2
        self.lower = Serial([stem, *blocks[:middle]], remat)
        self.upper = Serial(blocks[middle:], remat)
        # As in the multi-scale decoder: small ones make the first alignment follow the features.
        init = nnx.initializers.normal(head_scale / math.sqrt(d))
        self.head = nnx.Linear(d, CLASSES, kernel_init=init, rngs=rngs)
        self.interctc = nnx.Linear(d, CLASSES, kernel_init=init, rngs=rngs) if interctc else None

    def __call__(
        self,
        features: Sequence,
        session: Int[Array, "batch"],
        *,
        hidden: Bool[Array, "batch time"] | None = None,
        key: jax.Array | None = None,
    ) -> Outputs:
        """Decodes whole trials.

        Args:
            features: `[batch, time, channels]`, z-scored, 20 ms bins.
            session: which session each trial comes from.
            hidden: bins to replace by the learned mask vector, in training.
            key: turns on dropout and stochastic depth.
        """
        keys = split(key, 2)
        x = self.adaptation(self.smoothing(features.pad_to_multiple(self.block_size)), session)
        lower = self.lower(hide(x, hidden, self.mask_vector), key=keys[0])
        return self._outputs(lower, self.upper(lower, key=keys[1]))

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state of `batch` fresh streams."""
        parts = ("smoothing", "lower", "upper")
        return {name: getattr(self, name).initial_state(batch) for name in parts}

    def step(
        self, state: dict[str, Any], features: Sequence, session: Int[Array, "batch"]
    ) -> tuple[dict[str, Any], Outputs]:
        """Decodes the next bins of every stream, a multiple of `block_size`.

        Raises:
            ValueError: the model was not built causal, or the bins do not fill whole steps.
        """
        if not self.causal:
            raise ValueError("this model needs whole trials; build it with model.causal = True")
        require_whole_steps(features, self.block_size)
        new: dict[str, Any] = {}
        new["smoothing"], x = self.smoothing.step(state["smoothing"], features)
        x = self.adaptation(x, session)
        new["lower"], lower = self.lower.step(state["lower"], x)
        new["upper"], upper = self.upper.step(state["upper"], lower)
        return new, self._outputs(lower, upper)

    def _outputs(self, lower: Sequence, upper: Sequence) -> Outputs:
        upper = upper.masked()
        logits = {"phoneme": upper.with_values(self.head(upper.values.astype(jnp.float32)))}
        if self.interctc is not None:
            half_way = lower.masked().values.astype(jnp.float32)
            logits["interctc"] = lower.with_values(self.interctc(half_way))
        norms = {"norm/lower": frame_norm(lower), "norm/upper": frame_norm(upper)}
        return Outputs(upper, logits, norms)
