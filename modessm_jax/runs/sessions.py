"""Sessions are names: which adapter each session of some recordings uses in a run's model.

A model has an adapter for each session that it was trained on. Recordings may have others, which
are left out, or use the adapter of another session, or the mean of all: never one that was not
trained. Every choice is logged.
"""

import argparse
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from absl import logging

from modessm_jax.data.roots import session_names
from modessm_jax.data.validation import DataError, data_error

REFUSE, NEAREST, MEAN = RULES = ("refuse", "nearest", "mean")
LAYERS = "adaptation"  # the parameters of the adapters, one entry of their first axis for each

_DATE = re.compile(r"(\d{4})\.(\d{2})\.(\d{2})$")


@dataclass(frozen=True)
class Choice:
    """Which sessions of a split are scored, and as which.

    Attributes:
        sessions: those to score; none for all that are there.
        renamed: names of the model's sessions by names in the recordings.
        untrained: what a session that the model was not trained on gets: "nearest" or "mean"; with
            "refuse" it is left out.
    """

    sessions: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    untrained: str = REFUSE


def check_rule(key: str, rule: str) -> None:
    """Checks a value that must be one of `RULES`.

    Raises:
        ValueError: it is not.
    """
    if rule not in RULES:
        raise ValueError(f"{key} is {rule!r}; choose one of {', '.join(RULES)}")


def nearest(name: str, known: Collection[str]) -> str:
    """The session among `known` that was recorded nearest in time.

    By the dates that end the names (`t15.2023.08.11`), where all have one: the earlier of two that
    are as far. Otherwise the one before in alphabetical order, or for the first the one after.
    """
    others = sorted(known)
    days = {other: day_of(other) for other in (name, *others)}
    here = days[name]
    dated = [(abs((day - here).days), day, n) for n, day in days.items() if day and here]
    if len(dated) == len(days):
        return min(one for one in dated if one[2] in known)[2]
    before = [other for other in others if other < name]
    return before[-1] if before else others[0]


def day_of(name: str) -> date | None:
    """The date that ends the name of a session (`t15.2023.08.11`); None if there is none."""
    found = _DATE.search(name)
    try:
        return None if found is None else date(*map(int, found.groups()))
    except ValueError:  # such as 2023.13.41
        return None


def adapters(
    names: Sequence[str],
    known: Mapping[str, int],
    *,
    renamed: Mapping[str, str] | None = None,
    untrained: str = REFUSE,
) -> tuple[dict[str, int], list[str]]:
    """The adapter of each session, and the sessions that have none.

    Args:
        names: of sessions of the recordings.
        known: the adapters of the sessions that the model was trained on.
        renamed: as for `Choice`.
        untrained: one of `RULES`. The mean of all adapters counts as one more, `mean_of(known)`.
    """
    found: dict[str, int] = {}
    lacking = []
    for name in names:
        like = (renamed or {}).get(name, name)
        if like in known:
            found[name] = known[like]
        elif untrained == REFUSE:
            lacking.append(name)
            continue
        elif untrained == MEAN:
            like, found[name] = "the mean of all", mean_of(known)
        else:
            like = nearest(name, known)
            found[name] = known[like]
        if like != name:
            logging.warning("session %s is read with the adapter of %s", name, like)
    return found, lacking


def mean_of(known: Mapping[str, int]) -> int:
    """The entry that `with_mean` adds."""
    return 1 + max(known.values())


def with_mean(params: dict[str, Any], known: Mapping[str, int]) -> dict[str, Any]:
    """The parameters with one more adapter: the mean of those of the sessions trained on."""
    rows = jnp.array(sorted(known.values()))
    layers = {
        name: jnp.concatenate([leaf[: mean_of(known)], leaf[rows].mean(0, keepdims=True)])
        for name, leaf in params.get(LAYERS, {}).items()
    }
    return params | {LAYERS: layers} if layers else params


def choose(
    choice: Choice,
    known: Mapping[str, int] | None,
    root: Path,
    split: str,
    configured: Sequence[str],
) -> dict[str, int]:
    """The adapters of the sessions to score; the others that have the split are named in the log.

    Args:
        known: the adapters of the sessions that the model was trained on; None if it has none.
        root: of the recordings.
        split: "train", "val" or "test".
        configured: `data.sessions` of the run.

    Raises:
        DataError: a name is none of the root's or of the model's, or no session is left.
        ValueError: the rule is none.
    """
    check_rule("untrained_sessions", choice.untrained)
    there = session_names(root)
    unknown = [name for name in (*choice.sessions, *choice.renamed) if name not in there]
    if unknown:
        remedy = f"It holds {', '.join(there)}"
        raise data_error(root, "", "", f"has no session {', '.join(unknown)}", remedy)
    # Not `exists`: a link to a missing file is an error, which reading it will say.
    there = [name for name in there if os.path.lexists(root / name / f"data_{split}.hdf5")]
    wanted = choice.sessions or (configured and (*configured, *choice.renamed))
    names = [name for name in there if not wanted or name in wanted]
    if known is None:
        return dict.fromkeys(names, 0)
    strange = sorted({name for name in choice.renamed.values() if name not in known})
    if strange:
        raise DataError(
            f"the model was not trained on {', '.join(strange)}, but on {', '.join(known)}. Map a "
            "session to one of these."
        )
    found, lacking = adapters(names, known, renamed=choice.renamed, untrained=choice.untrained)
    if lacking and not found:
        raise DataError(
            f"the model was not trained on the sessions {', '.join(lacking)}, but on "
            f"{', '.join(known)}. Give a root of these sessions; or score new ones as one of them "
            "(--session_map new=old) or with --untrained_sessions nearest; or train on the new."
        )
    if lacking:
        logging.warning("left out, not trained on: session %s", ", ".join(lacking))
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every command that scores recordings; `choice_of` reads them."""
    parser.add_argument("--sessions", nargs="+", default=(), help="those to score (all)")
    parser.add_argument(
        "--session_map",
        nargs="+",
        default=(),
        metavar="NEW=OLD",
        help="sessions to be scored with the adapters of others, such as renamed ones",
    )
    parser.add_argument(
        "--untrained_sessions",
        choices=RULES,
        help="adapter of the sessions the model was not trained on; refuse leaves them out "
        "(as the run's config says)",
    )


def choice_of(options: argparse.Namespace, data: Mapping[str, Any]) -> Choice:
    """What the options of `add_arguments` choose, for a run with `data` in its config.

    Raises:
        ValueError: a NEW=OLD is none.
    """
    pairs = [pair.split("=") for pair in options.session_map]
    for pair in pairs:
        if len(pair) != 2 or not all(pair):
            raise ValueError(f"--session_map {'='.join(pair)}: give NEW=OLD, the names of sessions")
    rule = options.untrained_sessions or data.get("untrained_sessions", REFUSE)
    return Choice(tuple(options.sessions), dict(pairs), rule)
