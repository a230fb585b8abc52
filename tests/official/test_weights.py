"""The field's models with their authors' weights give their authors' logits."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from configs import gru, transformer
from modessm_jax.decoding.ctc import greedy, to_lists
from modessm_jax.losses.ctc import ctc_cost
from modessm_jax.official.export import NAMES
from modessm_jax.official.files import read_settings
from modessm_jax.official.weights import (
    SOURCES,
    Imported,
    WeightsError,
    brainaudio,
    nejm,
    neural_seq_decoder,
)
from modessm_jax.runs.load import build_shapes
from modessm_jax.sequence import Sequence

LOGITS, NATS = 2e-5, 1e-4  # of the largest logit; of each trial


def read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays}


@pytest.fixture
def material(shared_data: Path) -> Path:
    folder = shared_data / "parity"
    if not folder.is_dir():
        pytest.skip(f"no weights of the field's models at {folder}")
    return folder


def config_of(recipe: Any, imported: Imported) -> dict[str, Any]:
    config = recipe.get_config().to_dict()
    return config | {"model": config["model"] | imported.model | {"dtype": "float32"}}


def score(folder: Path, stored: str, recipe: Any, imported: Imported) -> tuple[float, Any]:
    """Compares logits on real frames with those stored; the greatest error of nats, phonemes."""
    batch, params = read(folder / "batch.npz"), imported.params
    built = build_shapes(config_of(recipe, imported), imported.channels, imported.sessions or 1)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, built.params)

    @jax.jit
    def run(params: Any, values: Any, bins: Any, session: Any, ids: Any, lengths: Any) -> Any:
        features = Sequence.from_lengths(values, bins)
        logits = built.apply(params, features, session).logits["phoneme"]
        nats = ctc_cost(logits, Sequence.from_lengths(ids, lengths)).nats
        return logits, nats, greedy(logits)

    names = ("input_features", "n_time_steps", "day", "labels", "label_lengths")
    logits, nats, phonemes = jax.device_get(run(params, *(batch[name] for name in names)))
    frames = batch[stored].shape[1]
    real = logits.mask[:, :frames]
    assert real.sum(axis=1).tolist() == batch["output_lengths"].tolist()
    assert not logits.mask[:, frames:].any()
    off = np.abs(logits.values[:, :frames] - batch[stored])[real].max()
    off /= np.abs(batch[stored][real]).max()
    assert off < LOGITS
    far = np.abs(nats - batch["ctc_loss_per_trial"]).max()
    print(f"{folder.name} {stored}: logits off by {off:.1e} of their largest, nats by {far:.1e}")
    return far, to_lists(phonemes)


@pytest.mark.parametrize("name", [pytest.param("gru_grid", marks=pytest.mark.slow), "gru_digits"])
def test_the_baseline(material: Path, name: str) -> None:
    folder = material / name
    settings = read_settings(folder / "config.yaml")
    far, phonemes = score(folder, "logits", gru, nejm(read(folder / "weights.npz"), settings))
    assert far < NATS
    assert phonemes == read_settings(folder / "meta.json")["greedy"]


def test_the_transformer(material: Path) -> None:
    imported = brainaudio(*transformer_files(material))
    assert imported.model["left"] == 1000 and imported.model["least_left"] == 250
    far, phonemes = score(material / "tf_grid", "logits", transformer, imported)
    assert far < NATS
    assert phonemes == read_settings(material / "tf_grid" / "meta.json")["greedy"]


@pytest.mark.slow
@pytest.mark.parametrize("stored", ["chunk1_context_half_second", "chunk5_context4", "no_mask"])
def test_the_transformer_with_other_attention(material: Path, stored: str) -> None:
    weights, settings = transformer_files(material)
    imported = brainaudio(weights, settings)
    patches = int(read(material / "tf_grid" / "batch.npz")["context_half_second_in_patches"])
    imported.model.update(
        {
            "chunk1_context_half_second": {"left": 2 * patches, "least_left": 0},
            "chunk5_context4": {"chunk": 10, "left": 40, "least_left": 0},
            "no_mask": {"causal": False},
        }[stored]
    )
    score(material / "tf_grid", f"logits_{stored}", transformer, imported)


def transformer_files(material: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    folder = material / "tf_grid"
    return read(folder / "weights.npz"), read_settings(folder / "config.json")


BASELINE = {
    "day_weights.0": np.eye(2), "day_biases.0": np.zeros((1, 2)), "h0": np.zeros((1, 1, 2)),
    "gru.weight_ih_l0": np.zeros((6, 4)), "gru.weight_hh_l0": np.zeros((6, 2)),
    "gru.bias_ih_l0": np.zeros(6), "gru.bias_hh_l0": np.zeros(6),
    "out.weight": np.zeros((41, 2)), "out.bias": np.zeros(41),
}  # fmt: skip


def test_settings_left_out_are_those_of_the_release() -> None:
    imported = nejm(BASELINE, {})
    assert imported.sessions == 1 and imported.channels == 2 and imported.names is None
    assert imported.model == {
        "name": "gru", "session": "affine", "smoothing": 2.0, "taps": 0, "input_dropout": 0.2,
        "patch": 2, "stride": 4, "d": 2, "layers": 1, "dropout": 0.4, "bidirectional": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"h0": None}, {}, "no 'h0'; they begin with day_biases.0"),
        ({"more": np.zeros(1)}, {}, "no use for more"),
        ({}, {"dataset": {"sessions": ["a", "b"]}}, "name 2 sessions, the weights have 1"),
        ({}, {"model": "gru"}, "no names under 'model'"),
    ],
)
def test_weights_of_something_else_are_named(changes, settings, message: str) -> None:
    changed = {name: array for name, array in (BASELINE | changes).items() if array is not None}
    with pytest.raises(WeightsError, match=message):
        nejm(changed, settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": "absent"}, "need model.transformer with .*n_heads"),
        ({"features_list": [4, 4]}, "of one participant"),
        ({"nDays": 3}, "has session layers"),
        ({"chunked_attention": {"eval": {"chunk_size": 1}}}, "needs timestep_duration_sec"),
    ],
)
def test_transformers_that_are_not_read_are_refused(changes, message: str) -> None:
    sizes = {name: value for name, value in (SIZES | changes).items() if value != "absent"}
    with pytest.raises(WeightsError, match=message):
        brainaudio(weights_of_a_transformer(), {"model": {"transformer": sizes}})


CHANNELS, WIDTH, PATCH = 3, 4, 6


def weights_of_24() -> dict[str, np.ndarray]:
    """Two sessions, two layers in two directions, a filter of 20 taps for a sigma of 2."""
    shapes = {
        "dayWeights": (2, CHANNELS, CHANNELS), "dayBias": (2, 1, CHANNELS),
        "fc_decoder_out.weight": (41, 2 * WIDTH), "fc_decoder_out.bias": (41,),
        "inpLayer0.weight": (CHANNELS, CHANNELS), "inpLayer0.bias": (CHANNELS,),
    }  # fmt: skip
    for layer, inputs in enumerate((CHANNELS * PATCH, 2 * WIDTH)):
        for suffix in (f"l{layer}", f"l{layer}_reverse"):
            shapes[f"gru_decoder.weight_ih_{suffix}"] = (3 * WIDTH, inputs)
            shapes[f"gru_decoder.weight_hh_{suffix}"] = (3 * WIDTH, WIDTH)
            shapes[f"gru_decoder.bias_ih_{suffix}"] = (3 * WIDTH,)
            shapes[f"gru_decoder.bias_hh_{suffix}"] = (3 * WIDTH,)
    draw = np.random.default_rng(0)
    weights = {name: draw.normal(size=shape) for name, shape in shapes.items()}
    kernel = np.exp(-0.5 * ((np.arange(20) - 9.5) / 2.0) ** 2)
    weights["gaussianSmoother.weight"] = np.broadcast_to(kernel / kernel.sum(), (CHANNELS, 1, 20))
    return weights


def test_the_baseline_of_brain_to_text_24() -> None:
    """Against its definition, in NumPy: channels outermost in a patch, two directions, 20 taps."""
    channels, patch, stride, d, bins, sigma = CHANNELS, PATCH, 4, WIDTH, 40, 2.0
    weights = weights_of_24()
    kernel = weights["gaussianSmoother.weight"][0, 0]
    x = np.random.default_rng(1).normal(size=(bins, channels))

    padded = np.pad(x, ((9, 10), (0, 0)))
    y = np.stack([kernel @ padded[t : t + 20] for t in range(bins)])
    y = y @ weights["dayWeights"][1] + weights["dayBias"][1]
    y = y / (1 + np.abs(y))
    starts = range(0, bins - patch + 1, stride)
    y = np.stack([y[t : t + patch].T.reshape(-1) for t in starts])
    for layer in range(2):
        outputs = []
        for way in ("", "_reverse"):
            of = {
                part: weights[f"gru_decoder.{part}_l{layer}{way}"]
                for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            }
            state, states = np.zeros(d), []
            for frame in y[::-1] if way else y:
                i = np.split(of["weight_ih"] @ frame + of["bias_ih"], 3)
                h = np.split(of["weight_hh"] @ state + of["bias_hh"], 3)
                r, z = (1 / (1 + np.exp(-i[gate] - h[gate])) for gate in (0, 1))
                state = (1 - z) * np.tanh(i[2] + r * h[2]) + z * state
                states.append(state)
            outputs.append(np.stack(states[::-1] if way else states))
        y = np.concatenate(outputs, axis=1)
    expected = y @ weights["fc_decoder_out.weight"].T + weights["fc_decoder_out.bias"]

    settings = {"strideLen": stride, "gaussianSmoothWidth": 2.0, "dropout": 0.4}
    imported = neural_seq_decoder(weights, settings)
    assert imported.model["smoothing"] == sigma and imported.model["taps"] == 20
    built = build_shapes(config_of(gru, imported), channels, 2)
    features = Sequence(x[None].astype(np.float32), np.ones((1, bins), bool))
    found = jax.jit(built.apply)(imported.params, features, np.array([1])).logits["phoneme"]
    frames = len(expected)
    assert found.lengths.tolist() == [frames]
    np.testing.assert_allclose(found.values[0, :frames], expected, atol=1e-4)


def weights_of_a_transformer() -> dict[str, np.ndarray]:
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, d: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (d,)

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    for name, d in (("patch_embedders.0.1", 6), ("patch_embedders.0.3", 4)):
        norm(name, d)
    norm("transformer.norm", 4)
    linear("patch_embedders.0.2", 6, 4)
    linear("projection", 4, 41)
    for layer in ("transformer.layers.0", "transformer.layers.1"):
        norm(f"{layer}.0.norm", 4)
        norm(f"{layer}.1.net.0", 4)
        linear(f"{layer}.0.to_out.0", 4, 4)
        linear(f"{layer}.1.net.1", 4, 8)
        linear(f"{layer}.1.net.4", 8, 4)
        shapes[f"{layer}.0.to_qkv.weight"] = (12, 4)
        shapes[f"{layer}.0.rel_pos_bias.weight"] = (399, 1)
    draw = np.random.default_rng(2)
    return {name: draw.normal(size=shape) for name, shape in shapes.items()}


SIZES = {"samples_per_patch": 2, "n_heads": 2, "features_list": [3], "chunked_attention": None}


@pytest.mark.parametrize(
    ("source", "weights", "settings", "unused"),
    [
        ("nejm", BASELINE, {}, ""),
        ("neural_seq_decoder", weights_of_24(), {}, "inpLayer|gaussianSmoother"),
        ("brainaudio", weights_of_a_transformer(), {"model": {"transformer": SIZES}}, ""),
    ],
)
def test_exported_weights_are_those_imported(source, weights, settings, unused: str) -> None:
    imported = SOURCES[source](weights, settings)
    found = NAMES[source](imported.model, imported.params)
    expected = {name for name in weights if not (unused and re.match(unused, name))}
    assert found.keys() == expected
    for name, array in found.items():
        np.testing.assert_allclose(array, weights[name], atol=1e-6)


def test_a_model_without_a_place_there_is_not_exported() -> None:
    imported = nejm(BASELINE, {})
    with pytest.raises(WeightsError, match=r"model\.name is 'gru', and .* has 'transformer'"):
        NAMES["brainaudio"](imported.model, imported.params)
    imported.params["gru"]["initial"] = np.ones(2, np.float32)
    with pytest.raises(WeightsError, match="begins with a learned state"):
        NAMES["neural_seq_decoder"](imported.model, imported.params)
