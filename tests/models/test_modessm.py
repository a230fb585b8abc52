"""The state-space decoder: its parts trained by their objectives, its modes, its streaming."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modessm_jax.models.build import Functional, build, build_module
from modessm_jax.sequence import Sequence
from modessm_jax.training import objectives

SMALL = {
    "name": "modessm", "smoothing": 1.0, "gate": 4, "session": "affine", "stem": 3, "patch": 4,
    "stride": 2, "d": 8, "layers": 2, "upper": 1, "heads": 2, "state": 4, "expand": 2, "kernel": 3,
    "modes": 2, "flow": 1, "predictor": "stateless", "joint": 8, "dropout": 0.1,
    "stochastic_depth": 0.1, "head_scale": 1.0, "causal": False, "dtype": "float32",
}  # fmt: skip
EVERYTHING = {"phoneme": 0.3, "rnnt": 1.0, "mode": 0.1, "flow": 0.05}


@functools.cache
def model(**changes) -> Functional:
    built = build(SMALL | changes, channels=4, sessions=3, hides_bins=True, seed=0)
    return built._replace(apply=jax.jit(built.apply, static_argnames=("every_mode", "denoise")))


def batch() -> tuple[Sequence, jax.Array, Sequence]:
    values = jax.random.normal(jax.random.key(0), (3, 24, 4))
    features = Sequence.from_lengths(values, jnp.asarray([24, 19, 14]))
    ids = jnp.asarray([[3, 3, 40], [7, 40, 0], [5, 0, 0]])
    return features, jnp.arange(3), Sequence(ids, ids > 0)


def moved(params):
    """Past the first update: FiLM, the stem and the bridge's last layer begin at zero."""
    noise = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: jnp.asarray(np.asarray(x) + 0.1 * noise.standard_normal(x.shape), x.dtype), params
    )


def loss(apply, params, weights):
    features, session, labels = batch()
    hidden = (jnp.arange(24) % 5 == 0)[None, :] & features.mask
    corrupted = features.with_values(features.values.at[:, :, 1].set(0.0))
    wanted = objectives.model_inputs(weights, labels, corrupted)
    outputs = apply(params, features, session, hidden, None, **wanted)
    costs = objectives.costs_of(outputs, labels, weights)
    return sum(weight * costs[name].nats.sum() for name, weight in weights.items())


def dead(gradient) -> set[str]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/").split("/")[0]
        for path, leaf in jax.tree.leaves_with_path(gradient)
        if not np.any(np.asarray(leaf))
    }


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"causal": True, "predictor": "lstm"}])
def test_every_parameter_receives_a_gradient(changes) -> None:
    apply, params, *_ = model(**changes)
    gradient = jax.jit(jax.grad(lambda p: loss(apply, p, EVERYTHING)))(moved(params))
    assert dead(gradient) == set()


@pytest.mark.slow
def test_ctc_alone_reaches_all_but_the_parts_that_join_later() -> None:
    apply, params, *_ = model()
    gradient = jax.jit(jax.grad(lambda p: loss(apply, p, {"phoneme": 1.0})))(moved(params))
    assert dead(gradient) == {"transducer", "flow"}


@pytest.mark.slow
def test_every_mode_is_what_each_mode_gives_alone() -> None:
    apply, params, *_ = model()
    params = moved(params)
    features, session, labels = batch()
    both = apply(params, features, session, every_mode=True, labels=labels.values)
    for mode in range(2):
        given = jnp.tile(jnp.eye(2)[mode], (3, 1))
        alone = apply(params, features, session, mode=given, labels=labels.values)
        for name in ("values", "mask"):
            rows = getattr(both.logits["phoneme"], name)[mode::2]
            np.testing.assert_allclose(rows, getattr(alone.logits["phoneme"], name), atol=1e-5)
        of_both, of_one = both.transducer, alone.transducer
        assert of_both is not None and of_one is not None
        np.testing.assert_allclose(
            of_both.encoder.values[mode::2], of_one.encoder.values, atol=1e-5
        )
        np.testing.assert_allclose(of_both.predictor[mode::2], of_one.predictor, atol=1e-5)
    np.testing.assert_allclose(jnp.exp(both.log_modes).sum(axis=1), 1.0, rtol=1e-5)
    assert both.diagnostics["norm/upper"].shape == (3,)


@pytest.mark.slow
def test_in_training_nothing_but_the_mode_tells_the_modes_apart() -> None:
    """FiLM begins as the identity in every mode; with another dropout in each they would differ."""
    apply, params, *_ = model(dropout=0.5, stochastic_depth=0.5)
    features, session, labels = batch()
    given = (features, session, None, jax.random.key(2))
    outputs = apply(params, *given, every_mode=True, labels=labels.values)
    assert outputs.transducer is not None
    for found in (outputs.encoder.values, outputs.transducer.predictor):
        np.testing.assert_allclose(found[0::2], found[1::2], atol=1e-6)
    still = apply(params, features, session, every_mode=True)
    assert np.abs(outputs.encoder.values - still.encoder.values).max() > 0.1


@pytest.mark.slow
def test_modes_differ_and_are_inferred_where_none_is_given() -> None:
    apply, params, *_ = model()
    params = moved(params)
    features, session, _ = batch()
    inferred = apply(params, features, session)
    given = apply(params, features, session, mode=jnp.exp(inferred.log_modes))
    other = apply(params, features, session, mode=jnp.exp(inferred.log_modes[:, ::-1]))
    values = [x.logits["phoneme"].masked().values for x in (inferred, given, other)]
    np.testing.assert_allclose(values[0], values[1], atol=1e-5)
    assert np.abs(values[0] - values[2]).max() > 1e-3


def test_an_untrained_bridge_changes_nothing_and_a_trained_one_does() -> None:
    apply, params, *_ = model()
    features, session, _ = batch()

    def logits(params, **further):
        return apply(params, features, session, **further).logits["phoneme"].masked().values

    np.testing.assert_array_equal(logits(params), logits(params, denoise=True))
    params = moved(params)
    assert np.abs(logits(params) - logits(params, denoise=True)).max() > 1e-3


def test_what_the_bridge_learns_from_is_decoded_denoised() -> None:
    apply, params, *_ = model()
    params = moved(params)
    features, session, _ = batch()
    corrupted = features.with_values(features.values.at[:, :, 1].set(0.0))
    learning = apply(params, features, session, corrupted=corrupted)
    denoised = apply(params, corrupted, session, denoise=True)
    clean = apply(params, features, session)
    values = [x.logits["phoneme"].masked().values for x in (learning, denoised, clean)]
    np.testing.assert_allclose(values[0], values[1], atol=1e-5)
    assert np.abs(values[0] - values[2]).max() > 1e-3


@pytest.mark.slow
def test_a_stream_can_be_denoised_too() -> None:
    module = build_module(
        SMALL | {"causal": True}, channels=4, sessions=3, hides_bins=False, seed=0
    )
    module.flow.out.kernel[...] = 0.1 * jax.random.normal(jax.random.key(2), (8, 8))
    features, session, _ = batch()
    whole = module(features, session, denoise=True).logits["phoneme"]
    state, pieces = module.initial_state(3), []
    for start in range(0, 24, 4):
        piece = jax.tree.map(lambda leaf, at=start: leaf[:, at : at + 4], features)
        state, outputs = module.step(state, piece, session, denoise=True)
        pieces.append(outputs.logits["phoneme"].masked().values)
    np.testing.assert_allclose(jnp.concatenate(pieces, axis=1), whole.masked().values, atol=1e-4)


def test_predicting_label_by_label_is_what_the_training_sees() -> None:
    apply, params, _, predict, _ = model(predictor="lstm")
    features, session, labels = batch()
    found = apply(params, features, session, labels=labels.values).transducer
    assert predict is not None and found is not None
    whole = found.predictor
    state, output = predict.step(params, predict.initial_state(params, 3), jnp.zeros(3, jnp.int32))
    np.testing.assert_allclose(output, whole[:, 0], atol=1e-6)
    _, output = predict.step(params, state, labels.values[:, 0])
    np.testing.assert_allclose(output, whole[:, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"upper": 2}, "upper = 2"),
        ({"lookahead": 2}, "lookahead = 2 needs causal = True"),
        ({"lookahead": 3, "causal": True}, "at most patch - stride = 2"),
        ({"predictor": "gru"}, "choose one of"),
        ({"modes": 1}, "modes is 1"),
        ({"flow": 0}, r"model\.flow = 0: give 1 or more"),
    ],
)
def test_configs_that_do_not_fit(changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**changes)


def test_a_whole_trial_model_does_not_stream() -> None:
    features, session, _ = batch()
    module = build_module(SMALL, channels=4, sessions=3, hides_bins=False, seed=0)
    with pytest.raises(ValueError, match=r"model\.causal"):
        module.step({}, features, session)
