"""The main job: from a config to a trained decoder and its report."""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from absl import logging
from ml_collections import ConfigDict

from modessm_jax.augmentation.augment import Augmentation, Corruption
from modessm_jax.data.batches import EvaluationBatches, TrainingBatches
from modessm_jax.data.plan import BatchPlan
from modessm_jax.data.recordings import unscored
from modessm_jax.data.selection import read_exclusions
from modessm_jax.evaluation.report import format_stages, format_table, write_report
from modessm_jax.evaluation.scoring import Scorer, evaluate, make_scorer
from modessm_jax.language.lexicon import Lexicon
from modessm_jax.models.build import Functional
from modessm_jax.runs.checkpoints import load_weights
from modessm_jax.runs.identity import keeps_former_rules, with_added_keys
from modessm_jax.runs.load import build_model, build_shapes
from modessm_jax.runs.splits import Splits, read_splits
from modessm_jax.runs.state import evaluation_params
from modessm_jax.runs.warm_start import format_report, read_source, warm_start
from modessm_jax.runtime.files import write_json
from modessm_jax.runtime.keys import damage_root
from modessm_jax.runtime.lock import in_use
from modessm_jax.runtime.mesh import data_mesh
from modessm_jax.runtime.processes import is_first
from modessm_jax.training.loop import never, train
from modessm_jax.training.objectives import FLOW
from modessm_jax.training.stages import Stage, read_stages
from modessm_jax.words.greedy import GreedyWords, greedy_word_rates

INIT = "init.json"  # in the workdir: where the first weights of a warm start are from

_Terms = TypeVar("_Terms", Augmentation, Corruption)


def run(
    config: ConfigDict, workdir: Path, *, stop: Callable[[int], bool] = never
) -> dict[str, Any]:
    """Trains, or goes on with, the run in `workdir`; then scores its best model on val.

    Left in `workdir`, beside what `train` leaves: report.png and the final results.json, which is
    returned.

    Raises:
        BusyError: another process trains in the directory.
        PreemptedError: `stop` asked for it; everything is saved.
        ValueError: the config, the data or the checkpoints do not fit; the message says which.
    """
    workdir = Path(workdir)
    # With the names in a file, which may be gone when the run is scored.
    names = read_exclusions(config.to_dict()["data"].get("exclude", ()))
    if names:
        config = copy.deepcopy(config)
        config.update({"data": {"exclude": names}})
    with in_use(workdir):
        return _run(config, workdir, stop)


def _run(config: ConfigDict, workdir: Path, stop: Callable[[int], bool]) -> dict[str, Any]:
    plain = with_added_keys(config.to_dict())
    data = plain["data"]
    splits = read_splits(plain, workdir)
    train_split, val_split, dataset = splits.train, splits.val, dict(splits.dataset)
    for part in (train_split, val_split):
        sessions = len({trial.session for trial in part.trials})
        print(
            f"{part.split}: {len(part)} trials of {sessions} sessions, {part.channels} "
            f"channels, {len(part.excluded)} left out, {len(part.repaired)} repaired"
        )
    augment = _terms(Augmentation, plain, "augment")
    corrupt = _terms(Corruption, plain, "corruption") if "corruption" in plain else None
    sizes = train_split.channels, len(dataset["sessions"])
    model = build_shapes(plain, *sizes)
    mesh = data_mesh()
    _check_selection(plain, model)
    batch_size, buckets = data["batch_size"], data["buckets"]
    plan = BatchPlan(
        train_split.bins,
        train_split.session_ids,
        batch_size=batch_size,
        buckets=buckets,
        seed=plain["training"]["seed"],
        multiple=model.multiple,
        sessions_per_batch=data["sessions_per_batch"],
    )
    former = keeps_former_rules(workdir)
    batches = TrainingBatches(train_split, plan, workers=data["workers"], one_label_width=former)
    held_out = EvaluationBatches(
        val_split, batch_size, model.multiple, buckets, one_label_width=former
    )
    scorer, normalize_by = make_scorer(model, mesh), plain["objective"]["normalize_by"]
    of_damaged: dict[str, Scorer] = {}  # by prefix of the figure; for the flow bridge's stage
    if corrupt is not None:
        damage: Any = {"corruption": corrupt, "damage": damage_root(tagged=not former)}
        of_damaged["damaged_"] = make_scorer(model, mesh, **damage)
        of_damaged["mended_"] = make_scorer(model, mesh, **damage, denoise=True)
    words = None
    if data["lexicon"]:
        lexicon = Path(data["lexicon"])
        words = GreedyWords(Lexicon.read(lexicon))
        trials = val_split.trials
        lacking = [(t.session, t.block, t.number) for t in trials if t.sentence is None]
        if lacking:
            logging.warning(unscored(lacking, len(trials)))
        dataset["lexicon"] = hashlib.sha256(lexicon.read_bytes()).hexdigest()[:16]

    def score(params: Any, stage: Stage) -> Mapping[str, float]:
        params = splits.scored(params)
        found = evaluate(scorer, params, held_out, val_split, normalize_by=normalize_by)
        figures = found.scalars() | ({} if words is None else greedy_word_rates(found, words))
        for prefix, damaged in of_damaged.items() if stage.weights.get(FLOW) else ():
            rates = evaluate(damaged, params, held_out, val_split).scalars()
            figures |= {prefix + name: rates[name] for name in ("per", "rnnt_per") if name in rates}
        return figures

    try:
        results = train(
            config,
            workdir,
            apply=model.apply,
            params=model.params,
            init=lambda: _initial(plain, build_model(plain, *sizes).params, splits, workdir),
            batches=batches,
            evaluate=score,
            trial_name=lambda index: train_split.trials[index].name,
            dataset=dataset,
            augment=augment,
            corrupt=corrupt,
            mesh=mesh,
            stop=stop,
        )
    finally:
        batches.close()
    best = load_weights(workdir / "best", model.params)
    params = splits.scored(evaluation_params(best))
    evaluation = evaluate(scorer, params, held_out, val_split, normalize_by=normalize_by)
    print(format_table(evaluation))
    if len(results["stages"]) > 1:
        print(format_stages(results["stages"]))
    if plain["init"]["run"]:
        results["init"] = json.loads((workdir / INIT).read_text(encoding="utf-8"))
    results |= {
        "val": evaluation.to_dict(),
        # Of every process that took part, however often the run was interrupted.
        "wall_seconds": round(sum(results["seconds"].values()) + evaluation.seconds, 1),
        "config": plain,
    }
    if is_first():
        write_report(workdir / "report.png", workdir / "metrics.jsonl", evaluation, best.step)
        write_json(workdir / "results.json", results)
    return results


def _initial(config: Mapping[str, Any], params: Any, splits: Splits, workdir: Path) -> Any:
    """The parameters a run begins with: as initialised, or in part those of `init.run`."""
    init = config["init"]
    if not init["run"]:
        return params
    source = splits.source or read_source(init["run"])
    params, report = warm_start(params, source, splits.sessions, init)
    # A run that goes back to its beginning must find what it began with.
    if splits.source is None and report != json.loads((workdir / INIT).read_text(encoding="utf-8")):
        raise ValueError(f"init.run: {init['run']} is not what it was when the run began")
    if is_first():
        write_json(workdir / INIT, report)
        print(format_report(report), flush=True)
    return params


def _check_selection(config: Mapping[str, Any], model: Functional) -> None:
    """Hours before the first evaluation would tell."""
    heads = [""] + ["rnnt_"] * (model.predict is not None)
    for stage in read_stages(config):
        place = f"stages.{stage.name}" if "stages" in config else "training"
        chosen = stage.select_by
        if chosen.endswith("wer") and not config["data"]["lexicon"]:
            raise ValueError(
                f"{place}.select_by is {chosen!r}, for which words must be known: give a lexicon "
                "by data.lexicon, as `python -m experiments.language_model lexicon` writes it"
            )
        known = [head + rate for head in heads for rate in ("per", "wer")]
        if stage.weights.get(FLOW):
            known += [f"{way}_{head}per" for way in ("damaged", "mended") for head in heads]
        if chosen not in known:
            raise ValueError(f"{place}.select_by is {chosen!r}; choose one of {', '.join(known)}")


def _terms(kind: type[_Terms], config: Mapping[str, Any], key: str) -> _Terms:
    try:
        return kind(**config[key])
    except TypeError as error:
        raise ValueError(f"config.{key}: {error}") from error
