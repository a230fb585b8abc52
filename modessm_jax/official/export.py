"""Parameters of the models here by the names of their authors' code: the way back of the import."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from modessm_jax.official.weights import WeightsError
from modessm_jax.runs.checkpoints import load_weights
from modessm_jax.runs.identity import read_identity
from modessm_jax.runs.state import evaluation_params
from modessm_jax.runtime.files import replacing

Params = Mapping[Any, Any]
Named = dict[str, np.ndarray]


def export_official(workdir: Path, out: Path, source: str, step: int | None = None) -> int:
    """Writes a model's parameters by their authors' names, float32, each as its authors store it.

    Where the run keeps a running average of the parameters, the average is written.

    Args:
        workdir: of the run.
        out: `.npz`; anything else is written by torch, which must be installed, as a model's state.
        source: whose names, one of `NAMES`.
        step: of a checkpoint; the run's best model by default.

    Returns:
        The updates made to the model.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged, or of a later format.
        WeightsError: their model has no place for what this one has.
        ImportError: torch is needed and not installed.
    """
    config, _ = read_identity(workdir)
    weights = load_weights(workdir / ("best" if step is None else "checkpoints"), None, step)
    params = jax.tree.map(np.asarray, evaluation_params(weights))
    arrays = NAMES[source](config["model"], params)
    arrays = {name: np.array(array, np.float32, order="C") for name, array in arrays.items()}
    if out.suffix == ".npz":
        with replacing(out) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        return weights.step
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            f"{out} is written by torch: pip install 'modessm_jax[import]', or give a .npz"
        ) from error
    with replacing(out) as partial:
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, partial)
    return weights.step


def _nejm(model: Mapping[str, Any], params: Params) -> Named:
    _require(model, name="gru", session="affine", bidirectional=False)
    matrices, offsets = _sessions(params)
    arrays = {"h0": params["gru"]["initial"][None, None]}
    for day, (matrix, offset) in enumerate(zip(matrices, offsets, strict=True)):
        arrays |= {f"day_weights.{day}": matrix, f"day_biases.{day}": offset[None]}
    arrays |= _recurrent("gru", params["gru"]["layers"])
    return arrays | _linear("out", params["head"])


def _neural_seq_decoder(model: Mapping[str, Any], params: Params) -> Named:
    _require(model, name="gru", session="affine")
    if np.any(params["gru"]["initial"]):
        raise WeightsError(
            "this model begins with a learned state, and that of neural_seq_decoder with zeros"
        )
    matrices, offsets = _sessions(params)
    arrays = {"dayWeights": matrices, "dayBias": offsets[:, None]}
    arrays |= _recurrent("gru_decoder", params["gru"]["layers"])
    for name in [name for name in arrays if name.startswith("gru_decoder.weight_ih_l0")]:
        # Patches have the bin outermost here, the channel there.
        kernel = arrays[name]
        by_bin = kernel.reshape(len(kernel), -1, offsets.shape[1])
        arrays[name] = by_bin.swapaxes(1, 2).reshape(kernel.shape)
    return arrays | _linear("fc_decoder_out", params["head"])


def _brainaudio(model: Mapping[str, Any], params: Params) -> Named:
    _require(model, name="transformer", session="none")
    arrays = _norm("patch_embedders.0.1", params["patch_norm"])
    arrays |= _linear("patch_embedders.0.2", params["embed"])
    arrays |= _norm("patch_embedders.0.3", params["embed_norm"])
    for layer, block in _in_order(params["blocks"]):
        attention, ff = (f"transformer.layers.{layer}.{part}" for part in (0, 1))
        arrays |= _norm(f"{attention}.norm", block["attention_norm"])
        arrays[f"{attention}.to_qkv.weight"] = block["attention"]["projections"]["kernel"].T
        arrays |= _linear(f"{attention}.to_out.0", block["attention"]["out"])
        arrays[f"{attention}.rel_pos_bias.weight"] = block["attention"]["distance_bias"][:, None]
        arrays |= _norm(f"{ff}.net.0", block["norm"])
        arrays |= _linear(f"{ff}.net.1", block["expand"])
        arrays |= _linear(f"{ff}.net.4", block["contract"])
    arrays |= _norm("transformer.norm", params["norm"])
    return arrays | _linear("projection", params["head"])


NAMES: dict[str, Callable[[Mapping[str, Any], Params], Named]] = {
    "nejm": _nejm,
    "brainaudio": _brainaudio,
    "neural_seq_decoder": _neural_seq_decoder,
}


def _require(model: Mapping[str, Any], **needed: Any) -> None:
    for key, value in needed.items():
        if model.get(key) != value:
            raise WeightsError(
                f"model.{key} is {model.get(key)!r}, and the model with these names has {value!r}"
            )


def _sessions(params: Params) -> tuple[np.ndarray, np.ndarray]:
    weight, offset = params["adaptation"]["weight"], params["adaptation"]["offset"]
    return weight + np.eye(weight.shape[-1], dtype=np.float32), offset


def _recurrent(name: str, layers: Params) -> Named:
    arrays = {}
    for layer, directions in _in_order(layers):
        for way, direction in _in_order(directions):
            suffix = f"l{layer}" + "_reverse" * way
            arrays[f"{name}.weight_ih_{suffix}"] = direction["input"]["kernel"].T
            arrays[f"{name}.weight_hh_{suffix}"] = direction["recurrent"].T
            arrays[f"{name}.bias_ih_{suffix}"] = direction["input"]["bias"]
            arrays[f"{name}.bias_hh_{suffix}"] = direction["recurrent_bias"]
    return arrays


def _in_order(children: Params) -> list[tuple[int, Any]]:
    return sorted((int(place), child) for place, child in children.items())


def _linear(name: str, layer: Params) -> Named:
    return {f"{name}.weight": layer["kernel"].T, f"{name}.bias": layer["bias"]}


def _norm(name: str, layer: Params) -> Named:
    return {f"{name}.weight": layer["scale"], f"{name}.bias": layer["bias"]}
