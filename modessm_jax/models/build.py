"""Models by name, as pure functions of a plain tree of parameters."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args

import jax
from flax import nnx
from jaxtyping import Array, Bool, Int

from modessm_jax.blocks.block import REMAT
from modessm_jax.models.gru import GRUDecoder
from modessm_jax.models.modessm import ModeSSM
from modessm_jax.models.multiscale import MultiScale
from modessm_jax.models.outputs import Outputs
from modessm_jax.models.single_scale import SingleScale
from modessm_jax.models.transformer import Transformer
from modessm_jax.runtime.keys import Purpose, root
from modessm_jax.sequence import Sequence

MODELS: dict[str, Any] = {
    "multiscale": MultiScale,
    "conformer": SingleScale,
    "modessm": ModeSSM,
    "gru": GRUDecoder,
    "transformer": Transformer,
}
DTYPES = ("float32", "bfloat16")  # float16 overflows where all bins of a trial are hidden
_PROBABILITIES = ("dropout", "input_dropout", "stochastic_depth")
_MAY_BE_ZERO = (
    "chunk", "head_scale", "layers", "least_left", "left", "lookahead", "smoothing", "taps",
)  # fmt: skip


class Predict(NamedTuple):
    """The predictor of a transducer as pure functions.

    `initial_state(params, batch) -> state`, `step(params, state, labels) -> (state, output)`, and
    `joint(params) -> (kernel, bias)`, the parameters of the joint network.
    """

    initial_state: Callable[..., Any]
    step: Callable[..., Any]
    joint: Callable[..., Any]


class Steps(NamedTuple):
    """A causal model as pure functions of its parameters, for streams whose bins arrive in pieces.

    `initial_state(params, batch) -> state` and `step(params, state, features, session) -> (state,
    Outputs)`. Every step takes a multiple of the model's `multiple` bins of each stream. It gives
    the frames of the whole call, `delay` frames late: so many that are not real come before them.
    """

    initial_state: Callable[..., Any]
    step: Callable[..., tuple[Any, Outputs]]
    delay: int


class Functional(NamedTuple):
    """A model as pure functions of its parameters.

    `apply(params, features, session, hidden=None, key=None, **further) -> Outputs`; the further
    arguments depend on the model.
    """

    apply: Callable[..., Outputs]
    params: dict[str, Any]  # at initialisation
    multiple: int  # bins; trials padded to a multiple of it are not padded further
    predict: Predict | None  # of a transducer
    steps: Steps | None = None  # of a causal model


def build_module(
    config: Mapping[str, Any], *, channels: int, sessions: int, hides_bins: bool, seed: int
) -> Any:
    """Builds the Flax NNX module of a model config; arguments as for `build`.

    Raises:
        ValueError: an unknown model name, a key that the model does not have or lacks, or a value
            that no model can be built with.
    """
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in config.items()}
    name = options.pop("name")
    if name not in MODELS:
        raise ValueError(f"model.name = {name!r}: choose one of {sorted(MODELS)}")
    parameters = inspect.signature(MODELS[name].__init__).parameters
    for key, value in options.items():
        kinds = get_args(parameters[key].annotation) if key in parameters else ()
        _check_value(key, value, len(kinds) if set(kinds) == {int} else 0)
    try:
        return MODELS[name](
            **options,
            channels=channels,
            sessions=sessions,
            hides_bins=hides_bins,
            rngs=nnx.Rngs(root(seed, Purpose.PARAMETERS)),
        )
    except TypeError as error:
        raise ValueError(f"config.model does not fit {name}: {error}") from error


def build(
    config: Mapping[str, Any], *, channels: int, sessions: int, hides_bins: bool, seed: int
) -> Functional:
    """Builds a model and splits it into pure functions and a plain dict of parameters.

    Args:
        config: `name` and that model's keyword arguments.
        channels: features in a bin.
        sessions: number of recording sessions.
        hides_bins: whether training hides bins; the model then has a mask vector, and otherwise
            ignores `hidden`.
        seed: of the parameters.

    Raises:
        ValueError: see `build_module`; and by `apply`, for an argument that the model does not
            take.
    """
    module = build_module(
        config, channels=channels, sessions=sessions, hides_bins=hides_bins, seed=seed
    )
    graph, params = nnx.split(module, nnx.Param)
    known = inspect.signature(type(module).__call__).parameters

    def apply(
        params: dict[str, Any],
        features: Sequence,
        session: Int[Array, "batch"],
        hidden: Bool[Array, "batch time"] | None = None,
        key: jax.Array | None = None,
        **further: Any,
    ) -> Outputs:
        unknown = sorted(further.keys() - known.keys())
        if unknown:
            raise ValueError(
                f"model.name = {config['name']!r}: this model takes no {', '.join(unknown)}; "
                "choose another, or drop the objective that needs it"
            )
        hidden = hidden if hides_bins else None
        return nnx.merge(graph, params)(features, session, hidden=hidden, key=key, **further)

    predict = None
    if hasattr(module, "transducer"):

        def initial_state(params: dict[str, Any], batch: int) -> Any:
            return nnx.merge(graph, params).transducer.predictor.initial_state(batch)

        def step(params: dict[str, Any], state: Any, labels: Int[Array, "batch"]) -> Any:
            return nnx.merge(graph, params).transducer.predictor.step(state, labels)

        def joint(params: dict[str, Any]) -> Any:
            head = nnx.merge(graph, params).transducer
            return head.kernel[...], head.bias[...]

        predict = Predict(initial_state, step, joint)
    steps = _steps(graph, module.delay) if module.causal else None
    return Functional(apply, nnx.to_pure_dict(params), module.block_size, predict, steps)


def _steps(graph: Any, delay: int) -> Steps:
    def initial_state(params: dict[str, Any], batch: int) -> Any:
        return nnx.merge(graph, params).initial_state(batch)

    def step(
        params: dict[str, Any], state: Any, features: Sequence, session: Int[Array, "batch"]
    ) -> tuple[Any, Outputs]:
        return nnx.merge(graph, params).step(state, features, session)

    return Steps(initial_state, step, delay)


def _check_value(key: str, value: Any, numbers: int) -> None:
    """Refuses what a model could be built with, but not compute with.

    Args:
        key: of the config's model.
        value: of it.
        numbers: how many whole numbers the model takes there; 0 where it takes one value.
    """
    if numbers and [type(each) for each in value] != [int] * numbers:
        example = ",".join("248"[:numbers])
        raise ValueError(
            f"model.{key} = {value}: give {numbers} whole numbers, as "
            f"--config.model.{key}={example}"
        )
    for name, choices in (("dtype", DTYPES), ("remat", REMAT)):
        if key == name and value not in choices:
            raise ValueError(f"model.{name} = {value!r}: choose one of {', '.join(choices)}")
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, bool | str):
            continue
        if key in _PROBABILITIES:
            sound, need = 0 <= number < 1, "0 or more, and below 1"
        elif key in _MAY_BE_ZERO:
            sound, need = 0 <= number < math.inf, "0 or more"
        else:
            sound, need = number >= 1, "1 or more"
        if not sound:
            raise ValueError(f"model.{key} = {value}: give {need}")
