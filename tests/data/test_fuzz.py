"""Malformed files, drawn at random: none may crash, be misread, or take much memory."""

import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from modessm_jax.data.recordings import Recordings, read_recordings
from modessm_jax.data.validation import DataError
from tests.data.layout import CHANNELS, write_trial
from tests.data.malformed_attributes import ATTRIBUTES
from tests.data.malformed_datasets import DATASETS
from tests.data.malformed_files import FILES
from tests.data.mutations import EXCLUDED, FEATURES, HARMLESS, REFUSED, REPAIRED, Mutation

MUTATIONS = [*ATTRIBUTES, *DATASETS, *FILES]
MALFORMED = [mutation for mutation in MUTATIONS if mutation.outcome != HARMLESS]
SAME = [mutation for mutation in MUTATIONS if mutation.outcome == HARMLESS]

SESSION = "s.1"
TRIALS = 4
# In memory, from the file, and from a file that is spoilt when the list of trials is known.
MODES = ("memory", "disk", "later")
PEAK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Case:
    """Mutations of different trials of one file; the first trial stays as it is."""

    mutations: dict[str, Mutation]
    split: str
    mode: str
    seed: int

    def __str__(self) -> str:
        spoilt = " and ".join(f"{m.name} in {trial}" for trial, m in self.mutations.items())
        return f"{spoilt} ({self.split}, {self.mode}, seed {self.seed})"


def cases(seed: int, count: int) -> Iterator[Case]:
    """Every malformation in turn, in random order; a second mutation goes with a third of them."""
    random = np.random.default_rng(seed)
    order: list[int] = []
    for _ in range(count):
        if not order:
            order = random.permutation(len(MALFORMED)).tolist()
        chosen = [MALFORMED[order.pop()]]
        if random.random() < 1 / 3:
            other = MUTATIONS[random.integers(len(MUTATIONS))]
            # Two groups cannot have the same odd name.
            if other.place != chosen[0].place or "{trial}" in other.place:
                chosen.append(other)
        # What spoils a whole file comes last: nothing could be changed after it.
        chosen.sort(key=lambda mutation: mutation.whole_file)
        if len(chosen) == 2 and chosen[0].whole_file:
            chosen.pop()
        victims = random.permutation(np.arange(1, TRIALS))[: len(chosen)].tolist()
        names = [f"trial_{victim:04d}" for victim in victims]
        # What only the list of trials is made from is not read again.
        reread = any(m.reread or m.field == FEATURES for m in chosen)
        split = random.choice(["train", "val"])
        mode = random.choice(MODES if reread else MODES[:2])
        by_name = dict(zip(names, chosen, strict=True))
        yield Case(by_name, str(split), str(mode), int(random.integers(2**31)))


def write_valid(file: Path, random: np.random.Generator) -> list[np.ndarray]:
    """Writes a file of valid trials and returns their features, exact in 16 bits too."""
    file.parent.mkdir(parents=True)
    features = []
    for number in range(TRIALS):
        bins = int(random.integers(6, 17))
        values = random.normal(size=(bins, CHANNELS)).astype(np.float16).astype(np.float32)
        write_trial(file, number, bins=bins, labels=labels_of(number), features=values)
        features.append(values)
    return features


def labels_of(number: int) -> list[int]:
    return [1 + number, 40, 39, 40]


def check(case: Case, root: Path) -> str:
    """Spoils a file as the case says, reads it, and returns what became of it."""
    random = np.random.default_rng(case.seed)
    file = root / SESSION / f"data_{case.split}.hdf5"
    features = write_valid(file, random)
    if case.mode == "later":
        recordings = read_recordings(root, case.split, memory_gib=0.0)
        spoil(case, file, random)
        return check_later(case, file, recordings, features)
    spoil(case, file, random)
    refusals = [m.refusal(file, t) for t, m in case.mutations.items() if m.outcome == REFUSED]
    try:
        recordings = read_recordings(root, case.split, memory_gib=8.0 * (case.mode == "memory"))
    except DataError as error:
        message = str(error)
        assert message.startswith(tuple(refusals)), message
        assert len(message) < 8000 and message.encode()
        return REFUSED
    assert not refusals, f"accepted: {case}"
    check_accepted(case, recordings, features)
    outcomes = {mutation.outcome for mutation in case.mutations.values()}
    if case.split == "val":
        outcomes.discard(EXCLUDED)
    return " and ".join(sorted(outcomes - {HARMLESS})) or "kept"


def spoil(case: Case, file: Path, random: np.random.Generator) -> None:
    for trial, mutation in case.mutations.items():
        mutation.apply(file, trial, random)


def check_accepted(case: Case, recordings: Recordings, features: list[np.ndarray]) -> None:
    outcomes = {int(name[-4:]): mutation.outcome for name, mutation in case.mutations.items()}
    found = {trial.number: index for index, trial in enumerate(recordings.trials)}
    assert list(found) == sorted(found)
    excluded = {n for n, outcome in outcomes.items() if outcome == EXCLUDED}
    if case.split == "val":
        assert not recordings.excluded
        assert set(found) == set(range(TRIALS))
    else:
        assert {one.trial for one in recordings.excluded} == {name_of(n) for n in excluded}
        assert set(found) == set(range(TRIALS)) - excluded
    repaired = {one.trial for one in recordings.repaired}
    wanted = {name_of(n) for n, outcome in outcomes.items() if outcome == REPAIRED}
    assert wanted <= repaired <= wanted | {name_of(n) for n in excluded}
    for number, index in found.items():
        trial, values = recordings.trials[index], recordings.features(index)
        assert np.isfinite(values).all()
        assert trial.name == name_of(number)
        assert trial.labels is not None and trial.labels.tolist() == labels_of(number)
        assert trial.sentence in (f"sentence {number}", None)
        if number not in excluded:
            assert trial.bins == len(features[number])
            same = values == features[number]
            assert same.all() or (outcomes.get(number) == REPAIRED and (same | (values == 0)).all())


def check_later(case: Case, file: Path, recordings: Recordings, features: list[np.ndarray]) -> str:
    """Nothing but what was changed is refused then, and what is read is as it was."""
    outcome = "kept"
    whole = any(mutation.whole_file for mutation in case.mutations.values())
    for index, trial in enumerate(recordings.trials):
        mutation = case.mutations.get(trial.group)
        try:
            values = recordings.features(index)
        except DataError as error:
            assert mutation is not None or whole, f"{case}: {error}"
            assert str(error).startswith(str(file)), str(error)
            outcome = REFUSED
            continue
        assert mutation is None or not mutation.reread, f"accepted later: {case}"
        assert (values == features[trial.number]).all(), str(case)
    return outcome


def name_of(number: int) -> str:
    return f"{SESSION}/block 1/trial {number}"


def check_within_memory(case: Case, root: Path) -> str:
    tracemalloc.start()
    try:
        outcome = check(case, root)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < PEAK_BYTES, f"{case} took {peak / 2**20:.0f} MiB"
    return outcome


@pytest.mark.parametrize("case", list(cases(seed=0, count=60)), ids=str)
def test_malformed_files_are_refused_by_name_or_counted(case, tmp_path):
    check_within_memory(case, tmp_path)


@pytest.mark.parametrize("mutation", SAME, ids=lambda mutation: mutation.name)
def test_harmless_differences_are_read_alike(mutation, tmp_path):
    for mode in ("memory", "later"):
        case = Case({"trial_0002": mutation}, "train", mode, seed=3)
        outcome = check(case, tmp_path / mode)
        assert outcome == (REFUSED if mode == "later" and mutation.reread else "kept")


@pytest.mark.slow
def test_a_thousand_malformed_files(tmp_path, record_testsuite_property):
    outcomes: Counter[str] = Counter()
    for number, case in enumerate(cases(seed=1, count=1000)):
        outcomes[f"{case.mode}: {check_within_memory(case, tmp_path / str(number))}"] += 1
    assert outcomes.total() == 1000
    # The table of `make faults` says so.
    kinds = ", ".join(f"{outcome} {count}" for outcome, count in sorted(outcomes.items()))
    record_testsuite_property("times", outcomes.total())
    record_testsuite_property("outcome", f"none crashed, was misread or took 64 MiB ({kinds})")


def every_dataset_alone(root: Path) -> None:
    for number, mutation in enumerate(DATASETS):
        for mode in ("disk", "later"):
            case = Case({"trial_0002": mutation}, "val", mode, seed=4)
            check(case, root / f"{number} {mode}")


# What HDF5 takes for itself, Python cannot see; the kernel can.
LIMITED = """
import resource, sys
from pathlib import Path
from tests.data.test_fuzz import every_dataset_alone

pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 2**28
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
every_dataset_alone(Path(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits address space")
def test_no_dataset_takes_256_mib(tmp_path):
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
