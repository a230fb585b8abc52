"""The recordings of a run, read and checked, and the adapter of each of their sessions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from modessm_jax.data.recordings import Recordings
from modessm_jax.data.roots import session_names
from modessm_jax.data.validation import EXCLUDE
from modessm_jax.runs.checkpoint_files import CheckpointError
from modessm_jax.runs.identity import read_begun
from modessm_jax.runs.load import describe_data, read_configured
from modessm_jax.runs.sessions import adapters, check_rule, with_mean
from modessm_jax.runs.warm_start import Source, inherited, read_source


class Splits(NamedTuple):
    """What a run trains on and is scored on.

    Attributes:
        sessions: names of the model's sessions, with their entries in the session layers.
        dataset: what identifies the data; see `describe_data`. `folders` are the sessions that were
            there when the run began.
        mean: whether a session of val is scored with the mean of the adapters.
        source: the weights that a new run begins with; None for a run that has begun.
    """

    train: Recordings
    val: Recordings
    sessions: dict[str, int]
    dataset: dict[str, Any]
    mean: bool
    source: Source | None

    def scored(self, params: Any) -> Any:
        """The parameters to score val with."""
        return with_mean(params, self.sessions) if self.mean else params


def read_splits(config: Mapping[str, Any], workdir: Path) -> Splits:
    """Reads both splits, of the sessions that were there when the run began.

    Args:
        config: of the run, as plain values.
        workdir: of the run.

    Raises:
        CheckpointError: sessions are gone that a run was trained on before it was interrupted.
        DataError: see `read_recordings`.
        ValueError: val has sessions without training trials, and `data.untrained_sessions` does not
            say what to do; or a name in `data.exclude` is of no trial.
    """
    data, begun = config["data"], read_begun(workdir)
    check_rule("data.untrained_sessions", data["untrained_sessions"])
    folders = _folders(data, begun)
    where = {"sessions": folders, "index_folder": workdir}
    train = read_configured(data, "train", **where)
    val = read_configured(data, "val", expect_channels=train.channels, **where)
    _check_exclusions(data["exclude"], train, val)
    source = None
    if begun is None:
        trained = {trial.session for trial in train.trials}
        if config["init"]["run"]:
            source = read_source(config["init"]["run"])
            trained.update(inherited(source, config["init"], train.channels))
        names = sorted(trained)
    else:
        names = begun["sessions"]
    sessions = {name: entry for entry, name in enumerate(names)}
    train.session_ids_by_name = val.session_ids_by_name = sessions
    dataset = describe_data(train, val, sessions=names)
    if begun is None or "folders" in begun:
        dataset["folders"] = folders
        val.session_ids_by_name = _adapters_of_val(config, val, sessions)
    used = {val.session_ids_by_name[trial.session] for trial in val.trials}
    return Splits(train, val, sessions, dataset, not used <= {*sessions.values()}, source)


def _folders(data: Mapping[str, Any], begun: Mapping[str, Any] | None) -> list[str]:
    """The sessions to read; those that have come since the run began are named."""
    if not data["root"]:
        return []  # reading them will say so
    there, chosen = session_names(Path(data["root"])), list(data["sessions"])
    if begun is None:
        return chosen or list(there)
    before = begun.get("folders", begun["sessions"])
    new = [name for name in there if name not in before]
    used = {name for trials in begun["trials"].values() for name in trials}
    gone = sorted(used - set(there))
    if gone:
        raise CheckpointError(
            f"{data['root']}: the sessions {', '.join(gone)} are gone, which the run uses; new are "
            f"{', '.join(new) or 'none'}. Give folders their names back to resume; or begin a new "
            "run from this one, with --config.init.run and a workdir of its own"
        )
    if new and not chosen:
        print(f"left out: session {', '.join(new)}, not there when the run began")
    return [name for name in before if name in there and (not chosen or name in chosen)]


def _adapters_of_val(
    config: Mapping[str, Any], val: Recordings, sessions: Mapping[str, int]
) -> dict[str, int]:
    names = sorted({trial.session for trial in val.trials})
    if config["model"].get("session") == "none":
        return dict.fromkeys(names, 0)
    found, lacking = adapters(names, sessions, untrained=config["data"]["untrained_sessions"])
    if lacking:
        raise ValueError(
            f"the sessions {', '.join(lacking)} have val trials, but none to train an adapter on. "
            "Choose the adapter of such sessions, --config.data.untrained_sessions=nearest or "
            "mean; or leave them out, by naming the others in data.sessions"
        )
    return found


def _check_exclusions(names: Sequence[str], *splits: Recordings) -> None:
    """A name that no trial has would leave a bad trial in."""
    used = {one.reason for part in splits for one in part.excluded if one.field == EXCLUDE}
    missing = sorted(set(names) - used)
    if missing:
        raise ValueError(
            f"data.exclude: neither train nor val has {', '.join(missing)}. Correct the names, or "
            "drop those of sessions that are not used."
        )
