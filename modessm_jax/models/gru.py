"""The official baseline of the Brain-to-Text benchmarks: stacked gated recurrent units and CTC."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Int

from modessm_jax.blocks.block import FrameDropout, require_whole_steps, split
from modessm_jax.blocks.lookahead import CentredSmoothing, Patches
from modessm_jax.blocks.recurrent import GRU
from modessm_jax.models.inputs import SessionAdaptation, hide
from modessm_jax.models.outputs import Outputs, frame_norm
from modessm_jax.phonemes import CLASSES
from modessm_jax.sequence import Sequence


class GRUDecoder(nnx.Module):
    """Features of a session to phoneme logits.

    Card et al. 2024, "An accurate and rapidly calibrating speech neuroprosthesis", and, with
    `bidirectional`, Willett et al. 2023: smoothing, session adaptation, softsign, a learned vector
    in place of time-masked bins, patches, `layers` of gated recurrent units of width `d`, linear
    CTC head.

    `smoothing` (sigma; 0: none), `taps` (of this filter, see `smoothing_taps`), `patch` and
    `stride` are in bins. A frame is of `patch` bins, all of which a trial must have: a trial of T
    bins has `(T - patch) // stride + 1` frames.

    In one direction the model streams: `step` takes any multiple of `stride` bins and gives what
    the whole call gives, `delay` frames later. The first `delay` frames of a stream are not real.
    """

    def __init__(
        self,
        *,
        channels: int,
        sessions: int,
        hides_bins: bool,
        session: str,
        smoothing: float,
        taps: int,
        input_dropout: float,
        patch: int,
        stride: int,
        d: int,
        layers: int,
        dropout: float,
        bidirectional: bool,
        remat: str = "none",
        dtype: str,
        rngs: nnx.Rngs,
    ):
        compute: Any = jnp.dtype(dtype)
        self.causal, self.block_size = not bidirectional, stride
        self.smoothing = CentredSmoothing(
            channels, smoothing, taps=taps, unit=stride, dtype=compute
        )
        self.adaptation = SessionAdaptation(
            session, channels=channels, sessions=sessions, dtype=compute
        )
        self.mask_vector = nnx.Param(jnp.zeros((channels,))) if hides_bins else None
        self.dropout = FrameDropout(input_dropout)
        self.patches = Patches(channels, patch, stride, whole=True, dtype=compute)
        self.delay = self.smoothing.delay // stride + self.patches.delay
        self.gru = GRU(
            patch * channels,
            d,
            layers=layers,
            rate=dropout,
            bidirectional=bidirectional,
            remat=remat,
            dtype=compute,
            rngs=rngs,
        )
        self.head = nnx.Linear(
            (1 + bidirectional) * d,
            CLASSES,
            kernel_init=nnx.initializers.xavier_uniform(),
            rngs=rngs,
        )

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
            key: turns on dropout.
        """
        keys = split(key, 2)
        x = self.smoothing(features.pad_to_multiple(self.block_size))
        x = hide(self._adapt(x, session), hidden, self.mask_vector)
        x = self.patches(x.with_values(self.dropout(x.values, keys[0])))
        states = self.gru.initial_state(x.mask.shape[0])
        return self._outputs(self.gru.run(states, x, keys[1])[1])

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state of `batch` fresh streams."""
        parts = ("smoothing", "patches", "gru")
        return {name: getattr(self, name).initial_state(batch) for name in parts}

    def step(
        self, state: dict[str, Any], features: Sequence, session: Int[Array, "batch"]
    ) -> tuple[dict[str, Any], Outputs]:
        """Decodes the next bins of every stream, a multiple of `block_size`.

        Raises:
            ValueError: the model runs in two directions, or the bins do not fill whole steps.
        """
        if not self.causal:
            raise ValueError(
                "this model needs whole trials; build it with model.bidirectional = False"
            )
        require_whole_steps(features, self.block_size)
        new: dict[str, Any] = {}
        new["smoothing"], x = self.smoothing.step(state["smoothing"], features)
        new["patches"], x = self.patches.step(state["patches"], self._adapt(x, session))
        new["gru"], x = self.gru.run(state["gru"], x, None)
        return new, self._outputs(x)

    def _adapt(self, x: Sequence, session: Int[Array, "batch"]) -> Sequence:
        x = self.adaptation(x, session)
        return x.with_values(jax.nn.soft_sign(x.values))

    def _outputs(self, x: Sequence) -> Outputs:
        logits = x.with_values(self.head(x.values.astype(jnp.float32)))
        return Outputs(x, {"phoneme": logits}, {"norm/gru": frame_norm(x)})
