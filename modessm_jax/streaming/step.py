"""The step of a causal model for a batch of streams, compiled before the first bin."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, Int32

from modessm_jax.decoding.transducer import select
from modessm_jax.models.build import Functional
from modessm_jax.sequence import Sequence
from modessm_jax.streaming.head import Head, Scored

State = Any  # of all streams, on the device


class BatchStep:
    """Compiled functions of one batch size: a fresh state, a step, and a restart of some streams.

    Attributes:
        bins: that a step takes of each stream.
        late: bins by which the frames lag.
        stride: bins in a frame.
        params: of the model.
    """

    def __init__(self, model: Functional, head: Head, params: Any, channels: int, rows: int):
        """Compiles.

        Raises:
            ValueError: the model needs whole trials.
        """
        steps = model.steps
        if steps is None:
            raise ValueError(
                "this model was trained on whole trials and cannot stream: train one with "
                "--config.model.causal=True, or a gru with --config.model.bidirectional=False"
            )
        self.bins, self.params = model.multiple, params

        def fresh(params: Any) -> State:
            return steps.initial_state(params, rows), head.start(params, rows)

        def step(
            params: Any, state: State, bins: Any, real: Any, active: Any, session: Any
        ) -> tuple[State, Scored]:
            features = Sequence.from_lengths(bins, real)
            of_model, outputs = steps.step(params, state[0], features, session)
            of_head, found = head.score(params, state[1], outputs)
            return select(active, (of_model, of_head), state), found

        def restart(params: Any, state: State, chosen: Any) -> State:
            return select(chosen, fresh(params), state)

        bins = jax.ShapeDtypeStruct((rows, self.bins, channels), jnp.float32)
        numbers = jax.ShapeDtypeStruct((rows,), jnp.int32)
        chosen = jax.ShapeDtypeStruct((rows,), jnp.bool)
        state = jax.eval_shape(fresh, params)
        given = params, state, bins, numbers, chosen, numbers
        found = jax.eval_shape(step, *given)[1]
        self.stride = self.bins // found.mask.shape[1]
        self.late = steps.delay * self.stride
        self._fresh = jax.jit(fresh).lower(params).compile()
        self._step = jax.jit(step, donate_argnums=1).lower(*given).compile()
        self._restart = jax.jit(restart, donate_argnums=1).lower(params, state, chosen).compile()
        if found.encoder is not None:
            head.compile(found.encoder.shape[-1])

    def start(self) -> State:
        """The state of fresh streams."""
        return self._fresh(self.params)

    def __call__(
        self,
        params: Any,
        state: State,
        bins: Float32[np.ndarray, "rows bins channels"],
        real: Int32[np.ndarray, "rows"],
        active: Bool[np.ndarray, "rows"],
        session: Int32[np.ndarray, "rows"],
    ) -> tuple[State, Scored]:
        """Steps the active streams; the others keep their state, and what is found of them is void.

        Args:
            params: those of the model, of which the session layers may be others.
            state: of all streams; its memory is given away.
            bins: the next ones of each stream.
            real: how many of these there are; fewer than a step takes at the end of a stream only.
            active: the streams to step.
            session: the entry of each in the session layers.

        Returns:
            The next state, and the frames, on the host.
        """
        state, found = self._step(params, state, bins, real, active, session)
        return state, jax.device_get(found)

    def restart(self, state: State, chosen: Bool[np.ndarray, "rows"]) -> State:
        """The state with the chosen streams fresh; its memory is given away."""
        return self._restart(self.params, state, chosen)
