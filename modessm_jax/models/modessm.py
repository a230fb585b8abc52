"""MODE-SSM: selective state-space layers, a latent speaking mode, CTC and a transducer."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modessm_jax.blocks.block import Serial, require_whole_steps, split
from modessm_jax.blocks.channel_gate import ChannelGate
from modessm_jax.blocks.convolution import DepthwiseConv, StridedConv, make_smoothing
from modessm_jax.blocks.flow import FlowBridge
from modessm_jax.blocks.mode import FiLM, ModeHead
from modessm_jax.blocks.predictor import make_predictor
from modessm_jax.blocks.ssm import SelectiveBlock
from modessm_jax.models.inputs import SessionAdaptation, hide
from modessm_jax.models.outputs import JointInputs, Outputs, frame_norm
from modessm_jax.phonemes import BLANK, CLASSES
from modessm_jax.runtime.keys import Purpose, root
from modessm_jax.sequence import Sequence


class TransducerHead(nnx.Module):
    """Encoder frames and labels to the inputs of the joint network, `width` wide."""

    def __init__(
        self, d: int, width: int, predictor: str, *, rate: float, dtype: Any, rngs: nnx.Rngs
    ):
        self.encoder = nnx.Linear(d, width, dtype=dtype, rngs=rngs)
        self.predictor = make_predictor(predictor, width, rate=rate, dtype=dtype, rngs=rngs)
        init = nnx.initializers.normal(0.1 / math.sqrt(width))
        self.kernel = nnx.Param(init(rngs.params(), (width, CLASSES)))
        # A blank is as likely as all labels together: untrained, a search emits no labels rather
        # than as many as it may.
        self.bias = nnx.Param(jnp.zeros((CLASSES,)).at[BLANK].set(math.log(CLASSES - 1)))

    def __call__(
        self, x: Sequence, labels: Int[Array, "batch labels"] | None, key: jax.Array | None
    ) -> JointInputs:
        predicted = None
        if labels is not None:
            predicted = self.predictor(labels, key=key)
            # Computed once for each trial, in however many modes it is decoded.
            predicted = jnp.repeat(predicted, x.mask.shape[0] // labels.shape[0], axis=0)
        encoded = x.with_values(self.encoder(x.values))
        return JointInputs(encoded, predicted, self.kernel[...], self.bias[...])


class ModeSSM(nnx.Module):
    """Features of a session to phoneme logits and to the inputs of a joint network.

    Gaussian smoothing, channel normalisation and gate, session adaptation, a learned vector in
    place of time-masked bins, depthwise stem, one frame for every `stride` bins, `layers` selective
    blocks. Before the last `upper` of them the flow bridge denoises the features (if `denoise`),
    and FiLM makes them depend on the speaking mode.

    `smoothing` (sigma), `stem` and `patch` (kernels) and `stride` are in bins, `kernel` in frames.
    `gate` is the width of the channel gate, `joint` that of the joint network, `flow` the number of
    layers of the flow bridge. A `causal` model runs in one direction and streams: `step` takes any
    multiple of `stride` bins and gives what the whole call gives, `delay` frames later: the strided
    convolution reaches `lookahead` bins beyond the stride of its frame. The first `delay` frames of
    a stream are not real.
    """

    def __init__(
        self,
        *,
        channels: int,
        sessions: int,
        hides_bins: bool,
        smoothing: float,
        gate: int,
        session: str,
        stem: int,
        patch: int,
        stride: int,
        d: int,
        layers: int,
        upper: int,
        heads: int,
        state: int,
        expand: int,
        kernel: int,
        modes: int,
        flow: int,
        predictor: str,
        joint: int,
        dropout: float,
        stochastic_depth: float,
        head_scale: float,
        causal: bool,
        lookahead: int = 0,
        remat: str = "none",
        dtype: str,
        rngs: nnx.Rngs,
    ):
        if not 0 < upper < layers:
            raise ValueError(f"upper = {upper}: give at least 1 and less than layers = {layers}")
        if lookahead and not (causal and lookahead <= patch - stride):
            raise ValueError(
                f"lookahead = {lookahead} needs causal = True, and at most patch - stride = "
                f"{patch - stride}"
            )
        compute: Any = jnp.dtype(dtype)
        built: Any = dict(causal=causal, dtype=compute, rngs=rngs)
        self.causal, self.modes, self.block_size = causal, modes, stride
        self.smoothing = make_smoothing(channels, smoothing, causal=causal, dtype=compute)
        self.gate = ChannelGate(channels, hidden=gate, **built)
        self.adaptation = SessionAdaptation(
            session, channels=channels, sessions=sessions, dtype=compute
        )
        self.mask_vector = nnx.Param(jnp.zeros((channels,))) if hides_bins else None
        # It begins by adding nothing. Random filters would blur hundreds of noisy channels before
        # anything has been learned of them: CTC then emits next to nothing for hundreds of steps.
        zeros = nnx.initializers.zeros_init()
        self.stem = DepthwiseConv(channels, stem, init=zeros, **built)
        sizes: Any = dict(kernel=patch, stride=stride, lookahead=lookahead)
        self.patch = StridedConv(channels, d, dropout=dropout, **sizes, **built)
        self.delay = self.patch.delay
        sizes = dict(heads=heads, state=state, expand=expand, kernel=kernel, layers=layers)
        paths = [stochastic_depth * (layer + 1) / layers for layer in range(layers)]
        blocks = [
            SelectiveBlock(d, rate=dropout, drop_path=path, **sizes, **built) for path in paths
        ]
        self.lower, self.upper = Serial(blocks[:-upper], remat), Serial(blocks[-upper:], remat)
        self.flow = FlowBridge(d, layers=flow, kernel=kernel, **built)
        self.mode = ModeHead(d, modes=modes, hidden=d, **built)
        self.film = FiLM(d, modes=modes, dtype=compute)
        self.norm = nnx.LayerNorm(d, dtype=compute, rngs=rngs)
        init = nnx.initializers.normal(head_scale / math.sqrt(d))
        self.head = nnx.Linear(d, CLASSES, kernel_init=init, rngs=rngs)
        self.transducer = TransducerHead(
            d, joint, predictor, rate=dropout, dtype=compute, rngs=rngs
        )

    def __call__(
        self,
        features: Sequence,
        session: Int[Array, "batch"],
        *,
        hidden: Bool[Array, "batch time"] | None = None,
        key: jax.Array | None = None,
        labels: Int[Array, "batch labels"] | None = None,
        corrupted: Sequence | None = None,
        mode: Float[Array, "batch modes"] | None = None,
        every_mode: bool = False,
        denoise: bool = False,
    ) -> Outputs:
        """Decodes whole trials.

        Args:
            features: `[batch, time, channels]`, z-scored, 20 ms bins.
            session: which session each trial comes from.
            hidden: bins to replace by the learned mask vector, in training.
            key: turns on dropout and stochastic depth.
            labels: for the predictor, 0 in the padding.
            corrupted: the features as bad electrodes would record them, to train the flow bridge on
                the pair; it is these features, denoised, that are decoded.
            mode: weights of the modes of each trial; by default they are inferred.
            every_mode: decode each trial once in every mode.
            denoise: whether the flow bridge denoises the features; it has to be trained first.
        """
        keys = split(key, 5)
        lower = self._lower(features, session, hidden, keys)
        flow = None
        if corrupted is not None:
            # With the same dropout as the clean features, so that only the corruption differs.
            clean, lower = lower, self._lower(corrupted, session, hidden, keys)
            of_times = root(0, Purpose.DROPOUT) if keys[4] is None else keys[4]
            flow = self.flow.training_pair(lower, clean, of_times)
        if denoise or corrupted is not None:
            lower = self.flow(lower)
        log_modes = self.mode(lower)

        def decode(z: jax.Array) -> Sequence:
            return self.upper(self.film(lower, z), key=keys[2])

        if every_mode:
            # The same dropout in all modes, so that only the mode differs.
            upper = jax.vmap(decode, out_axes=1)(jnp.eye(self.modes)[:, None, None, :])
            upper = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), upper)
        else:
            upper = decode(jnp.exp(log_modes) if mode is None else mode[:, None, :])
        return self._outputs(lower, upper, log_modes, labels, keys[3], flow)

    def initial_state(self, batch: int) -> dict[str, Any]:
        """The state of `batch` fresh streams."""
        parts = ("smoothing", "gate", "stem", "patch", "lower", "flow", "mode", "upper")
        return {name: getattr(self, name).initial_state(batch) for name in parts}

    def step(
        self,
        state: dict[str, Any],
        features: Sequence,
        session: Int[Array, "batch"],
        *,
        denoise: bool = False,
    ) -> tuple[dict[str, Any], Outputs]:
        """Decodes the next bins of every stream, a multiple of `stride`.

        Raises:
            ValueError: the model was not built causal, or the bins do not fill whole steps.
        """
        if not self.causal:
            raise ValueError("this model needs whole trials; build it with model.causal = True")
        require_whole_steps(features, self.block_size)
        new = dict(state)
        new["smoothing"], x = self.smoothing.step(state["smoothing"], features)
        new["gate"], x = self.gate.step(state["gate"], x)
        x = self.adaptation(x, session)
        new["stem"], filtered = self.stem.step(state["stem"], x)
        new["patch"], x = self.patch.step(state["patch"], _add(x, filtered))
        new["lower"], lower = self.lower.step(state["lower"], x)
        if denoise:
            new["flow"], lower = self.flow.step(state["flow"], lower)
        new["mode"], log_modes = self.mode.step(state["mode"], lower)
        new["upper"], upper = self.upper.step(state["upper"], self.film(lower, jnp.exp(log_modes)))
        return new, self._outputs(lower, upper, log_modes, None, None, None)

    def _lower(
        self,
        features: Sequence,
        session: Int[Array, "batch"],
        hidden: Bool[Array, "batch time"] | None,
        keys: list[jax.Array | None],
    ) -> Sequence:
        x = self.smoothing(features.pad_to_multiple(self.block_size))
        x = self.adaptation(self.gate(x), session)
        x = hide(x, hidden, self.mask_vector)
        return self.lower(self.patch(_add(x, self.stem(x)), key=keys[0]), key=keys[1])

    def _outputs(
        self,
        lower: Sequence,
        upper: Sequence,
        log_modes: Float[Array, "batch rows modes"],
        labels: Int[Array, "batch labels"] | None,
        key: jax.Array | None,
        flow: tuple[Sequence, Sequence] | None,
    ) -> Outputs:
        log_modes = log_modes[:, -1]  # of the whole trial: padding repeats its last frame
        encoder = upper.with_values(self.norm(upper.values)).masked()
        logits = encoder.with_values(self.head(encoder.values.astype(jnp.float32)))
        norms = {"lower": frame_norm(lower), "upper": frame_norm(upper)}
        rows = (log_modes.shape[0], -1)
        diagnostics = {f"norm/{name}": x.reshape(rows).mean(axis=1) for name, x in norms.items()}
        diagnostics |= {f"mode/{k}": jnp.exp(log_modes[:, k]) for k in range(self.modes)}
        return Outputs(
            encoder,
            {"phoneme": logits},
            diagnostics,
            transducer=self.transducer(encoder, labels, key),
            log_modes=log_modes,
            flow=flow,
        )


def _add(x: Sequence, branch: Sequence) -> Sequence:
    return x.with_values(x.values + jax.nn.silu(branch.values))
