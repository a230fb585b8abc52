"""The multi-scale Conformer CTC decoder: three strided pathways fused at the middle rate."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modessm_jax.blocks.block import Block, Serial, rematerialised, require_whole_steps, split
from modessm_jax.blocks.conformer import ConformerBlock
from modessm_jax.blocks.convolution import StridedConv, make_smoothing
from modessm_jax.blocks.fusion import CrossScaleFusion
from modessm_jax.models.inputs import SessionAdaptation, hide
from modessm_jax.models.outputs import Outputs, frame_norm
from modessm_jax.phonemes import CLASSES, DIPHONES, by_previous
from modessm_jax.sequence import Sequence

SCALES = ("fast", "medium", "slow")


class MultiScale(nnx.Module):
    """Features of a session to phoneme logits.

    Smoothing, session adaptation, a learned vector in place of time-masked bins, one strided
    convolution and a stack of Conformer blocks for each scale, cross-scale fusion (normalised if
    `fusion_norm`), linear CTC head (over diphones, summed to phonemes, if `diphones`).

    `strides`, `patches` (kernels of the strided convolutions), `smoothing` (sigma; 0: none),
    `chunk` and `left` are in bins. A `causal` model streams: `step` takes any multiple of
    `block_size` bins, a chunk, and gives what the whole call gives.
    """

    delay = 0  # frames by which a stream lags

    def __init__(
        self,
        *,
        channels: int,
        sessions: int,
        hides_bins: bool,
        d: int,
        layers: tuple[int, int, int],
        heads: int,
        ff: int,
        kernel: int,
        strides: tuple[int, int, int],
        patches: tuple[int, int, int],
        dropout: float,
        stochastic_depth: float,
        session: str,
        fusion_norm: bool,
        smoothing: float,
        interctc: bool,
        diphones: bool,
        head_scale: float,
        causal: bool,
        chunk: int,
        left: int,
        remat: str = "none",
        dtype: str,
        rngs: nnx.Rngs,
    ):
        fast, medium, slow = strides
        if medium % fast or slow % medium:
            raise ValueError(f"strides = {strides}: each must be a multiple of the one before")
        if causal and (chunk < 1 or chunk % slow or left % chunk):
            raise ValueError(
                f"causal decoding needs chunk = {chunk} to be at least 1 and a multiple of the slow"
                f" stride {slow}, and left = {left} to be a multiple of chunk"
            )
        compute: Any = jnp.dtype(dtype)
        built: Any = dict(dtype=compute, rngs=rngs)
        self.causal, self.diphones = causal, diphones
        self.block_size = chunk if causal else math.lcm(*strides)
        self.stride = medium
        self.smoothing = make_smoothing(channels, smoothing, causal=causal, dtype=compute)
        self.adaptation = SessionAdaptation(
            session, channels=channels, sessions=sessions, dtype=compute
        )
        self.mask_vector = nnx.Param(jnp.zeros((channels,))) if hides_bins else None

        def attended(stride: int) -> dict[str, Any]:
            return dict(chunk=chunk // stride if causal else None, left=left // stride)

        def pathway(stride: int, patch: int, depth: int) -> list[Block]:
            stem = StridedConv(
                channels, d, kernel=patch, stride=stride, causal=causal, dropout=dropout, **built
            )
            sizes: Any = dict(heads=heads, ff=ff, kernel=kernel, rate=dropout)
            sizes |= attended(stride) | built
            paths = [stochastic_depth * (layer + 1) / depth for layer in range(depth)]
            return [stem, *(ConformerBlock(d, drop_path=path, **sizes) for path in paths)]

        pathways = zip(strides, patches, layers, strict=True)
        fast_blocks, medium_blocks, slow_blocks = [pathway(*sizes) for sizes in pathways]
        middle = 1 + (layers[1] + 1) // 2
        self.remat = remat
        self.fast, self.slow = Serial(fast_blocks, remat), Serial(slow_blocks, remat)
        self.medium_lower = Serial(medium_blocks[:middle], remat)
        self.medium_upper = Serial(medium_blocks[middle:], remat)
        self.fusion = CrossScaleFusion(
            d,
            ratios=(medium // fast, slow // medium),
            heads=heads,
            rate=dropout,
            final_norm=fusion_norm,
            **attended(medium),
            **built,
        )
        # CTC keeps the alignment that it finds first. Small initial weights make it one that
        # follows the features; large ones find some alignment sooner.
        init = nnx.initializers.normal(head_scale / math.sqrt(d))
        classes = DIPHONES if diphones else CLASSES
        self.head = nnx.Linear(d, classes, kernel_init=init, rngs=rngs)
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
        keys = split(key, 5)
        x = self.adaptation(self.smoothing(features.pad_to_multiple(self.block_size)), session)
        x = hide(x, hidden, self.mask_vector)
        fast = self.fast(x, key=keys[0])
        lower = self.medium_lower(x, key=keys[1])
        medium = self.medium_upper(lower, key=keys[2])
        slow = self.slow(x, key=keys[3])
        fuse = rematerialised(self.fusion.run, self.remat)
        _, fused = fuse(None, fast, medium, slow, key=keys[4])
        return self._outputs(fast, lower, medium, slow, fused)

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state of `batch` fresh streams."""
        parts = ("smoothing", "fast", "medium_lower", "medium_upper", "slow", "fusion")
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
        new["fast"], fast = self.fast.step(state["fast"], x)
        new["medium_lower"], lower = self.medium_lower.step(state["medium_lower"], x)
        new["medium_upper"], medium = self.medium_upper.step(state["medium_upper"], lower)
        new["slow"], slow = self.slow.step(state["slow"], x)
        new["fusion"], fused = self.fusion.run(state["fusion"], fast, medium, slow)
        return new, self._outputs(fast, lower, medium, slow, fused)

    def _outputs(
        self, fast: Sequence, lower: Sequence, medium: Sequence, slow: Sequence, fused: Sequence
    ) -> Outputs:
        fused = fused.masked()
        logits = {"phoneme": _logits(self.head, fused)}
        if self.diphones:
            logits["diphone"] = logits["phoneme"]
            phonemes = phoneme_log_probabilities(logits["diphone"].values)
            logits["phoneme"] = fused.with_values(phonemes)
        if self.interctc is not None:
            logits["interctc"] = _logits(self.interctc, lower.masked())
        scales = zip((*SCALES, "fused"), (fast, medium, slow, fused), strict=True)
        return Outputs(fused, logits, {f"norm/{name}": frame_norm(x) for name, x in scales})


def _logits(head: nnx.Linear, x: Sequence) -> Sequence:
    return x.with_values(head(x.values.astype(jnp.float32)))


def phoneme_log_probabilities(
    logits: Float[Array, "batch frames diphones"],
) -> Float[Array, "batch frames classes"]:
    """Float32 log probabilities of the blank and of each phoneme, summed over its diphones.

    They serve as phoneme logits, of the same distribution. DCoND, Li et al. 2024, "Brain-to-text
    decoding with context-aware neural representations and large language models"
    (arXiv:2411.10657).

    Args:
      logits: of `phonemes.DIPHONES` classes, not normalised.
    """
    scores = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    phonemes = jax.nn.logsumexp(by_previous(scores), axis=-2)
    return jnp.concatenate([scores[..., :1], phonemes], axis=-1)
