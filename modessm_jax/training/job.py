"""The main job: from a config to a trained decoder and its report."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from modessm_jax.data.augment import Augmentation
from modessm_jax.data.pipeline import evaluation_batches, training_batches
from modessm_jax.data.plan import BatchPlan
from modessm_jax.data.trials import Recordings, read_recordings
from modessm_jax.training.evaluation import evaluate, make_scorer
from modessm_jax.training.loop import train
from modessm_jax.training.mesh import data_mesh
from modessm_jax.training.report import format_table, write_report
from modessm_jax.training.runs import build_model, evaluate_run, load_run, write_dataset
from modessm_jax.training.writers import write_json


def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains, or goes on with, the run in `workdir`; then scores its best model on val.

    Left in `workdir`, beside what `train` leaves: dataset.json, report.png and the final
    results.json, which is returned.

    Raises:
        ValueError: the config, the data or the checkpoints do not fit; the message says which.
    """
    start = time.monotonic()
    train_split, val_split = (_read(config.data, split) for split in ("train", "val"))
    _check_augmentation(config.augment)
    model = build_model(config, train_split.channels, len(train_split.sessions))
    workdir.mkdir(parents=True, exist_ok=True)
    write_dataset(workdir, train_split, config.data.root)
    mesh = data_mesh()
    data = config.data
    plan = BatchPlan(
        train_split.bins,
        train_split.session_ids,
        batch_size=data.batch_size,
        buckets=data.buckets,
        seed=config.training.seed,
        multiple=model.multiple,
        sessions_per_batch=data.sessions_per_batch,
    )
    batches = training_batches(train_split, plan, workers=data.workers)
    held_out = evaluation_batches(val_split, data.batch_size, model.multiple, data.buckets)
    scorer = make_scorer(model.apply, mesh)

    def score(params: Any) -> Mapping[str, float]:
        rule = config.objective.normalize_by
        return evaluate(scorer, params, held_out, val_split, normalize_by=rule).scalars()

    try:
        results = train(
            config,
            workdir,
            apply=model.apply,
            params=model.params,
            batches=batches,
            evaluate=score,
            trial_name=lambda index: train_split.trials[index].name,
            augment=Augmentation(**config.augment),
            mesh=mesh,
        )
    finally:
        batches.close()
    evaluation = evaluate_run(load_run(workdir), "val")
    print(format_table(evaluation))
    write_report(workdir / "report.png", workdir / "metrics.jsonl", evaluation)
    results |= {
        "val": evaluation.to_dict(),
        "wall_seconds": round(time.monotonic() - start, 1),
        "config": config.to_dict(),
    }
    write_json(workdir / "results.json", results)
    return results


def _read(data: ConfigDict, split: str) -> Recordings:
    return read_recordings(
        data.root, split, sessions=data.sessions, table=data.table, memory_gib=data.memory_gib
    )


def _check_augmentation(options: ConfigDict) -> None:
    try:
        Augmentation(**options)
    except TypeError as error:
        raise ValueError(f"config.augment: {error}") from error
