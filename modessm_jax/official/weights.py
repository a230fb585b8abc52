"""Weights of the field's models, by their authors' names, as parameters of the models here.

`nejm`: `GRUDecoder` of Neuroprosthetics-Lab/nejm-brain-to-text (Brain-to-Text '25).
`neural_seq_decoder`: `GRUDecoder` of cffan/neural_seq_decoder (Brain-to-Text '24).
`brainaudio`: `TransformerModel` of ebrahimfeghhi/brainaudio (`transformer_chunking`).

Linear weights are stored output first there and input first here. A session's matrix is stored
whole there and as its difference from the identity here. Sizes follow from the weights; what does
not, such as the stride of patches, is in the settings that the authors' code saves.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Weights = Mapping[str, np.ndarray]


class WeightsError(ValueError):
    """Weights, or settings, that are not those of the model they are read for."""


class Imported(NamedTuple):
    """A model as it is here."""

    model: dict[str, Any]  # keys of `config.model`; of a recipe the rest
    params: dict[str, Any]
    channels: int
    sessions: int | None  # that it adapts to; None: it has no session adaptation
    names: tuple[str, ...] | None  # of the sessions, where the settings have them


class _Reader:
    """Takes arrays by name, and knows which were not taken."""

    def __init__(self, weights: Weights):
        self._weights, self._left = weights, set(weights)

    def take(self, name: str) -> np.ndarray:
        if name not in self._weights:
            known = ", ".join(sorted(self._weights)[:8])
            raise WeightsError(f"the weights have no {name!r}; they begin with {known}")
        self._left.discard(name)
        return np.asarray(self._weights[name], np.float32)

    def linear(self, name: str) -> dict[str, np.ndarray]:
        return {"kernel": self.take(f"{name}.weight").T, "bias": self.take(f"{name}.bias")}

    def norm(self, name: str) -> dict[str, np.ndarray]:
        return {"scale": self.take(f"{name}.weight"), "bias": self.take(f"{name}.bias")}

    def numbered(self, pattern: str) -> int:
        """How many names there are of a pattern with a number, counted from 0."""
        found = (re.fullmatch(pattern, name) for name in self._weights)
        return 1 + max((int(match[1]) for match in found if match), default=-1)

    def drop(self, pattern: str) -> None:
        """Names that the authors' model has and does not use."""
        self._left = {name for name in self._left if not re.fullmatch(pattern, name)}

    def recurrent(self, name: str) -> dict[int, dict[int, Any]]:
        """The layers of torch's GRU, each with its one or two directions."""

        def direction(suffix: str) -> dict[str, Any]:
            kernel, bias = (self.take(f"{name}.{part}_ih_{suffix}") for part in ("weight", "bias"))
            return {
                "input": {"kernel": kernel.T, "bias": bias},
                "recurrent": self.take(f"{name}.weight_hh_{suffix}").T,
                "recurrent_bias": self.take(f"{name}.bias_hh_{suffix}"),
            }

        ways = ("", "_reverse")[: 1 + (f"{name}.weight_ih_l0_reverse" in self._weights)]
        return {
            layer: {place: direction(f"l{layer}{way}") for place, way in enumerate(ways)}
            for layer in range(self.numbered(rf"{name}\.weight_ih_l(\d+)"))
        }

    def finish(self) -> None:
        if self._left:
            raise WeightsError(f"the model has no use for {', '.join(sorted(self._left))}")


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = settings.get(name, {})
    if not isinstance(section, Mapping):
        raise WeightsError(f"the settings have no names under {name!r}, but {section!r}")
    return section


def nejm(weights: Weights, settings: Mapping[str, Any]) -> Imported:
    """The official baseline of Brain-to-Text '25; without settings, with those of its release.

    Raises:
        WeightsError: a name is missing, or one is not known; the settings are of another model.
    """
    of_model, of_data = _section(settings, "model"), _section(settings, "dataset")
    transforms = _section(of_data, "data_transforms")
    reader = _Reader(weights)
    days = range(reader.numbered(r"day_weights\.(\d+)"))
    matrices = [reader.take(f"day_weights.{day}") for day in days]
    offsets = [reader.take(f"day_biases.{day}").reshape(-1) for day in days]
    layers, state = reader.recurrent("gru"), reader.take("h0").reshape(-1)
    head = reader.linear("out")
    reader.finish()
    smoothed = transforms.get("smooth_data", True)
    names = of_data.get("sessions")
    return _baseline(
        np.stack(matrices),
        np.stack(offsets),
        layers,
        state,
        head,
        # Without patches a frame is one bin.
        stride=of_model.get("patch_stride", 4) if of_model.get("patch_size", 14) else 1,
        smoothing=float(transforms.get("smooth_kernel_std", 2.0)) if smoothed else 0.0,
        taps=0,
        dropout=of_model.get("rnn_dropout", 0.4),
        input_dropout=_section(of_model, "input_network").get("input_layer_dropout", 0.2),
        names=None if names is None else tuple(map(str, names)),
    )


def neural_seq_decoder(weights: Weights, settings: Mapping[str, Any]) -> Imported:
    """The official baseline of Brain-to-Text '24; without settings, with those of its release.

    Its authors count one frame less in every trial than its patches are.

    Raises:
        WeightsError: a name is missing, or one is not known.
    """
    reader = _Reader(weights)
    reader.drop(r"inpLayer\d+\.(weight|bias)")
    matrices, offsets = reader.take("dayWeights"), reader.take("dayBias")[:, 0]
    layers, head = reader.recurrent("gru_decoder"), reader.linear("fc_decoder_out")
    smoothing, taps = 0.0, 0
    if settings.get("gaussianSmoothWidth", 2.0):
        kernel = reader.take("gaussianSmoother.weight")[0, 0]
        taps, middle = len(kernel), len(kernel) // 2
        # Of neighbouring taps of a Gaussian, one half a bin and one a bin and a half from its top.
        smoothing = 1 / math.sqrt(math.log(float(kernel[middle]) / float(kernel[middle + 1])))
        smoothing = round(smoothing, 3)
    reader.drop(r"gaussianSmoother\.weight")
    reader.finish()
    channels = matrices.shape[-1]
    for direction in layers[0].values():
        # Patches have the channel outermost there, the bin here.
        kernel = direction["input"]["kernel"]
        by_channel = kernel.reshape(channels, -1, kernel.shape[1])
        direction["input"]["kernel"] = by_channel.swapaxes(0, 1).reshape(kernel.shape)
    width = layers[0][0]["recurrent"].shape[0]
    return _baseline(
        matrices,
        offsets,
        layers,
        np.zeros((width,), np.float32),
        head,
        stride=settings.get("strideLen", 4),
        smoothing=smoothing,
        taps=taps,
        dropout=settings.get("dropout", 0.4),
        input_dropout=0.0,
        names=None,
    )


def _baseline(
    matrices: np.ndarray,
    offsets: np.ndarray,
    layers: dict[int, dict[int, Any]],
    state: np.ndarray,
    head: dict[str, np.ndarray],
    *,
    names: tuple[str, ...] | None,
    **model: Any,
) -> Imported:
    """The parameters of `models.gru.GRUDecoder`."""
    sessions, channels = offsets.shape
    if names is not None and len(names) != sessions:
        raise WeightsError(f"the settings name {len(names)} sessions, the weights have {sessions}")
    identity = np.eye(channels, dtype=np.float32)
    params = {
        "adaptation": {"weight": matrices - identity, "offset": offsets},
        "gru": {"initial": state, "layers": layers},
        "head": head,
    }
    model |= {
        "name": "gru",
        "session": "affine",
        "patch": len(layers[0][0]["input"]["kernel"]) // channels,
        "d": len(state),
        "layers": len(layers),
        "bidirectional": len(layers[0]) > 1,
    }
    return Imported(model, params, channels, sessions, names)


def brainaudio(weights: Weights, settings: Mapping[str, Any]) -> Imported:
    """The time-masked causal Transformer, of one participant; its settings are needed.

    Raises:
        WeightsError: a name is missing, or one is not known; a setting is missing, or one that this
            project's model does not have.
    """
    try:
        sizes = settings["model"]["transformer"]
        patch, heads = sizes["samples_per_patch"], sizes["n_heads"]
        (channels,) = sizes["features_list"]
        chunked = sizes["chunked_attention"]
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            "the settings of the Transformer need model.transformer with samples_per_patch, "
            f"n_heads, features_list (of one participant) and chunked_attention ({error!r})"
        ) from error
    if sizes.get("nDays") is not None or sizes.get("day_softsign"):
        raise WeightsError("this Transformer has session layers (nDays), which are not read")
    reader = _Reader(weights)
    blocks = {}
    for layer in range(reader.numbered(r"transformer\.layers\.(\d+)\..*")):
        attention, ff = (f"transformer.layers.{layer}.{part}" for part in (0, 1))
        blocks[layer] = {
            "attention_norm": reader.norm(f"{attention}.norm"),
            "attention": {
                "projections": {"kernel": reader.take(f"{attention}.to_qkv.weight").T},
                "out": reader.linear(f"{attention}.to_out.0"),
                "distance_bias": reader.take(f"{attention}.rel_pos_bias.weight")[:, 0],
            },
            "norm": reader.norm(f"{ff}.net.0"),
            "expand": reader.linear(f"{ff}.net.1"),
            "contract": reader.linear(f"{ff}.net.4"),
        }
    params = {
        "patch_norm": reader.norm("patch_embedders.0.1"),
        "embed": reader.linear("patch_embedders.0.2"),
        "embed_norm": reader.norm("patch_embedders.0.3"),
        "blocks": blocks,
        "norm": reader.norm("transformer.norm"),
        "head": reader.linear("projection"),
    }
    reader.finish()
    model = {
        "name": "transformer",
        "session": "none",
        "smoothing": float(settings.get("gaussianSmoothWidth", 2.0)),
        "patch": patch,
        "input_dropout": settings.get("input_dropout", 0.2),
        "d": params["embed"]["kernel"].shape[1],
        "layers": len(blocks),
        "heads": heads,
        "ff": blocks[0]["expand"]["kernel"].shape[1] if blocks else 1,
        "dropout": settings.get("dropout", 0.35),
        "causal": chunked is not None,
        **(_bounds(chunked, patch) if chunked else {}),
    }
    return Imported(model, params, channels, None, None)


def _bounds(chunked: Mapping[str, Any], patch: int) -> dict[str, int]:
    """Chunk and past in bins, of whole chunks; their settings are in patches and seconds."""
    try:
        size, duration = chunked["eval"]["chunk_size"], chunked["timestep_duration_sec"]

        def bins(seconds: Any) -> int:
            return math.floor(seconds / (size * duration) + 1e-6) * size * patch

        left = bins(chunked["eval"]["context_sec"])
        least = min(left, bins(chunked["context_sec_min"]))
    except (KeyError, TypeError) as error:
        raise WeightsError(
            "chunked_attention needs timestep_duration_sec, context_sec_min, and in eval "
            f"chunk_size and context_sec, all of them numbers ({error!r})"
        ) from error
    return {"chunk": size * patch, "left": left, "least_left": least}


SOURCES: dict[str, Callable[[Weights, Mapping[str, Any]], Imported]] = {
    "nejm": nejm,
    "brainaudio": brainaudio,
    "neural_seq_decoder": neural_seq_decoder,
}
