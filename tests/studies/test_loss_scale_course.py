"""A run measured from outside: its checkpoints on validation trials, its curves, its stages."""

import math
from typing import Any

import jax
import numpy as np
import optax
import pytest

from modessm_jax.data.batches import EvaluationBatches
from modessm_jax.data.recordings import read_recordings
from modessm_jax.losses.ctc import ctc_cost
from modessm_jax.losses.transducer import Joint, transducer_cost
from modessm_jax.runs.checkpoints import CheckpointError
from modessm_jax.runs.load import load_run
from studies.loss_scale.course import Course, Stage, along_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def course(workdir) -> Course:
    return along_run(workdir, batches=5)


def test_checkpoints_are_measured_on_all_trials(workdir, course):
    """As in one batch, without rows to fill it up."""
    run = load_run(workdir)
    recordings = read_recordings(run.config["data"]["root"], "val")
    batch = jax.device_put(EvaluationBatches(recordings, 3, run.functional.multiple, 1)[0])

    def losses(params) -> tuple[Any, Any]:
        labels = batch.labels
        found = run.functional.apply(params, batch.features, batch.session, labels=labels.values)
        joint = found.transducer
        assert joint is not None
        head = Joint(joint.kernel, joint.bias)
        of_ctc = ctc_cost(found.logits["phoneme"], labels).nats
        of_rnnt = transducer_cost(joint.encoder, joint.predictor, head, labels).nats
        return tuple((nats / found.encoder.lengths).mean() for nats in (of_ctc, of_rnnt)), (
            of_ctc.mean(),
            (of_rnnt / labels.lengths).mean(),
        )

    (point,) = [point for point in course.points if point.step == 4]
    both = jax.jit(lambda x: (losses(x), jax.jacrev(lambda x: losses(x)[0])(x)))
    (costs, further), gradients = both(run.params)
    assert point.costs["frames"] == pytest.approx([float(cost) for cost in costs], rel=1e-4)
    assert point.costs["none"].ctc == pytest.approx(float(further[0]), rel=1e-4)
    assert point.costs["labels"].rnnt == pytest.approx(float(further[1]), rel=1e-4)
    shared = [{k: g[k] for k in g if k not in ("head", "transducer")} for g in gradients]
    norms = [float(optax.tree.norm(gradient)) for gradient in shared]
    assert point.gradients == pytest.approx(norms, rel=1e-3)


def test_the_initial_model_comes_first(course):
    assert [(point.step, point.stage) for point in course.points] == [(0, "-"), (4, "ctc_warmup")]
    first, second = (point.costs["frames"] for point in course.points)
    assert not np.allclose(first, second, rtol=1e-3)


def test_only_what_both_costs_reach_is_compared(course):
    assert {"lower", "upper", "patch"} <= set(course.shared)
    assert not {"head", "transducer", "flow"} & set(course.shared)


def test_stages_and_the_curve(course):
    assert course.stages == [Stage("ctc_warmup", 0), Stage("joint", 4)]
    (first, alone), second = course.curve
    assert (first, alone.ctc) == (4, 2.0) and math.isnan(alone.rnnt)
    assert second == (6, (1.0, 1.5))


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="give the workdir of a training run"):
        along_run(tmp_path, batches=1)
