"""The door out of `models/`: a module becomes a pure function and a plain tree of parameters."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from flax import nnx
from jaxtyping import Array, Bool, Int

from modessm_jax.models.multiscale import MultiScale
from modessm_jax.models.outputs import Outputs
from modessm_jax.sequence import Sequence

MODELS: dict[str, Callable[..., nnx.Module]] = {"multiscale": MultiScale}


class Functional(NamedTuple):
    """`apply(params, features, session, hidden=None, key=None) -> Outputs`, first parameters, and
    `multiple`: trials padded to a multiple of it give encoder frames without further padding."""

    apply: Callable[..., Outputs]
    params: dict[str, Any]
    multiple: int


def build_module(
    config: Mapping[str, Any], *, channels: int, sessions: int, hides_bins: bool, seed: int
) -> Any:
    """Builds the Flax NNX module a model config names.

    Raises:
        ValueError: an unknown model name, or a key the model does not know or misses.
    """
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in config.items()}
    name = options.pop("name")
    if name not in MODELS:
        raise ValueError(f"model.name = {name!r}: choose one of {sorted(MODELS)}")
    try:
        return MODELS[name](
            **options,
            channels=channels,
            sessions=sessions,
            hides_bins=hides_bins,
            rngs=nnx.Rngs(seed),
        )
    except TypeError as error:
        raise ValueError(f"config.model does not fit {name}: {error}") from error


def build(
    config: Mapping[str, Any], *, channels: int, sessions: int, hides_bins: bool, seed: int
) -> Functional:
    """Builds a model and takes it apart into a pure function and a plain dict of parameters.

    Args:
        config: `name` and that model's keyword arguments.
        channels: features in a bin.
        sessions: recording sessions the model tells apart.
        hides_bins: whether training hides bins, for which the model then learns a vector;
            otherwise `hidden` is ignored.
        seed: of the parameters.
    """
    module = build_module(
        config, channels=channels, sessions=sessions, hides_bins=hides_bins, seed=seed
    )
    graph, params = nnx.split(module, nnx.Param)

    def apply(
        params: dict[str, Any],
        features: Sequence,
        session: Int[Array, "batch"],
        hidden: Bool[Array, "batch time"] | None = None,
        key: jax.Array | None = None,
    ) -> Outputs:
        hidden = hidden if hides_bins else None
        return nnx.merge(graph, params)(features, session, hidden=hidden, key=key)

    return Functional(apply, nnx.to_pure_dict(params), module.block_size)
