"""The time-masked causal Transformer: patches, pre-norm blocks with a bounded past, and CTC."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Int

from modessm_jax.blocks.block import FrameDropout, rematerialised, require_whole_steps, split
from modessm_jax.blocks.lookahead import CentredSmoothing, Patches
from modessm_jax.blocks.transformer_block import EPSILON, KERNEL_INIT, TransformerBlock
from modessm_jax.models.inputs import SessionAdaptation
from modessm_jax.models.outputs import Outputs, frame_norm
from modessm_jax.phonemes import CLASSES
from modessm_jax.sequence import Sequence


class Transformer(nnx.Module):
    """Features of a session to phoneme logits.

    Feghhi et al. 2025, with the chunked attention that its authors added later: smoothing, session
    adaptation (which they do without), patches of `patch` bins, LayerNorm, linear, LayerNorm,
    `layers` of Transformer blocks, LayerNorm, linear CTC head. A hidden patch is zero before the
    first LayerNorm, whose offset is thus the one learned vector of all hidden patches.

    `smoothing` (sigma; 0: none), `patch`, `chunk`, `left` and `least_left` are in bins. A `causal`
    model attends to chunks of `chunk` bins and to `left` bins before; in training, for each batch,
    to a number drawn between `least_left` and `left`. It streams: `step` takes any multiple of
    `block_size` bins, a chunk, and gives what the whole call gives, `delay` frames later. The first
    `delay` frames of a stream are not real. The keys and values of `left` bins are kept, so a step
    costs the same however long the stream is.
    """

    def __init__(
        self,
        *,
        channels: int,
        sessions: int,
        hides_bins: bool,
        session: str,
        smoothing: float,
        patch: int,
        input_dropout: float,
        d: int,
        layers: int,
        heads: int,
        ff: int,
        dropout: float,
        causal: bool,
        chunk: int,
        left: int,
        least_left: int,
        remat: str = "none",
        dtype: str,
        rngs: nnx.Rngs,
    ):
        del hides_bins  # no parameter depends on it
        if layers < 1:
            raise ValueError(f"layers = {layers}: give at least 1")
        if causal and (chunk < 1 or chunk % patch or left % chunk or least_left % chunk):
            raise ValueError(
                f"causal decoding needs chunk = {chunk} to be at least 1 and a multiple of patch = "
                f"{patch}, and left = {left} and least_left = {least_left} to be multiples of chunk"
            )
        if causal and least_left > left:
            raise ValueError(f"least_left = {least_left} is more than left = {left}")
        compute: Any = jnp.dtype(dtype)
        self.causal, self.block_size = causal, chunk if causal else patch
        self.smoothing = CentredSmoothing(
            channels, smoothing, taps=0, unit=self.block_size, dtype=compute
        )
        self.delay = self.smoothing.delay // patch
        self.adaptation = SessionAdaptation(
            session, channels=channels, sessions=sessions, dtype=compute
        )
        self.patches = Patches(channels, patch, patch, whole=False, dtype=compute)
        norm: Any = dict(epsilon=EPSILON, dtype=compute, rngs=rngs)
        self.patch_norm = nnx.LayerNorm(patch * channels, **norm)
        # Hidden patches give the second LayerNorm nothing but this bias, and a zero vector's
        # gradient would be enormous.
        self.embed = nnx.Linear(
            patch * channels,
            d,
            kernel_init=KERNEL_INIT,
            bias_init=nnx.initializers.normal(0.1),
            dtype=compute,
            rngs=rngs,
        )
        self.embed_norm = nnx.LayerNorm(d, **norm)
        self.dropout = FrameDropout(input_dropout)
        self.lefts = (least_left // self.block_size, left // self.block_size)
        self.chunk, self.remat = chunk // patch, remat
        self.blocks = nnx.List(
            TransformerBlock(
                d,
                heads=heads,
                ff=ff,
                rate=dropout,
                chunk=self.chunk if causal else None,
                left=left // patch,
                dtype=compute,
                rngs=rngs,
            )
            for _ in range(layers)
        )
        self.norm = nnx.LayerNorm(d, **norm)
        self.head = nnx.Linear(d, CLASSES, kernel_init=KERNEL_INIT, rngs=rngs)

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
            hidden: bins to hide, in training: patches that begin with one.
            key: turns on dropout, and draws how far to look back.
        """
        of_left, of_input, of_blocks = split(key, 3)
        x = self.smoothing(features.pad_to_multiple(self.block_size))
        x = self.patches(self.adaptation(x, session))
        if hidden is not None:
            # A patch is as likely to be hidden as a bin is, whatever the length of the spans.
            begins = hidden[:, :: self.patches.stride]
            begins = jnp.pad(begins, ((0, 0), (0, x.mask.shape[1] - begins.shape[1])))
            zero = jnp.zeros((), x.values.dtype)
            x = x.with_values(jnp.where(begins[..., None], zero, x.values))
        x = self._embed(x, of_input)
        left = None
        if of_left is not None and self.causal:
            least, most = self.lefts
            left = self.chunk * jax.random.randint(of_left, (), least, most + 1)
        for block, block_key in zip(self.blocks, split(of_blocks, len(self.blocks)), strict=True):
            run = rematerialised(block.run_block, self.remat)
            _, x = run(None, x, block_key, left)
        return self._outputs(x)

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state of `batch` fresh streams."""
        return {
            "smoothing": self.smoothing.initial_state(batch),
            "blocks": tuple(block.initial_state(batch) for block in self.blocks),
        }

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
        smoothing, x = self.smoothing.step(state["smoothing"], features)
        x = self._embed(self.patches(self.adaptation(x, session)), None)
        blocks = []
        for block, block_state in zip(self.blocks, state["blocks"], strict=True):
            block_state, x = block.step(block_state, x)
            blocks.append(block_state)
        new = {"smoothing": smoothing, "blocks": tuple(blocks)}
        return new, self._outputs(x)

    def _embed(self, x: Sequence, key: jax.Array | None) -> Sequence:
        embedded = self.embed_norm(self.embed(self.patch_norm(x.values)))
        return x.with_values(self.dropout(embedded, key))

    def _outputs(self, x: Sequence) -> Outputs:
        encoder = x.with_values(self.norm(x.values)).masked()
        logits = encoder.with_values(self.head(encoder.values.astype(jnp.float32)))
        return Outputs(encoder, {"phoneme": logits}, {"norm/blocks": frame_norm(x)})
