"""Which trials make up the batch of a training step: a pure function of (seed, step).

Nothing depends on earlier steps, so a run that is resumed, rolled back or fed by any number of
workers gets the same batches. Compiling a shape takes time, so trials are padded to one of a few
lengths, chosen to waste the fewest bins.
"""

import hashlib

import numpy as np
from jaxtyping import Int


def padded_lengths(
    bins: Int[np.ndarray, "trials"], limit: int, multiple: int, smallest: int = 1
) -> tuple[int, ...]:
    """At most `limit` lengths, multiples of `multiple`, that waste the least padding.

    Trials are grouped by length and padded to the longest of their group; the grouping that needs
    the fewest bins altogether is found exactly, by dynamic programming over the distinct lengths.

    Args:
        bins: real length of every trial.
        limit: the most lengths wanted.
        multiple: what every length must be divisible by.
        smallest: the fewest trials in a group; ignored if there are fewer trials than that.

    Returns:
        The lengths in ascending order; the last holds the longest trial.
    """
    rounded = np.maximum(-(-bins.astype(np.int64) // multiple), 1) * multiple
    lengths, counts = np.unique(rounded, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])
    members = before[None, 1:] - before[:-1, None]  # [i, j]: trials of lengths i..j
    cost = np.where(members >= smallest, members * lengths.astype(float), np.inf)
    cost[0, -1] = members[0, -1] * lengths[-1]
    best, starts = cost[0], [np.zeros(len(lengths), np.int64)]
    for _ in range(1, min(limit, len(lengths))):
        # One group more: the last group is lengths i..j, the others make up 0..i-1.
        total = np.concatenate([[np.inf], best[:-1]])[:, None] + cost
        chosen = np.where(total.min(axis=0) < best, total.argmin(axis=0), -1)
        best = np.minimum(best, total.min(axis=0))
        starts.append(chosen)
    ends: list[int] = []
    end = len(lengths) - 1
    for chosen in reversed(starts):
        if end >= 0 and chosen[end] >= 0:
            ends.append(end)
            end = int(chosen[end]) - 1
    return tuple(int(lengths[end]) for end in reversed(ends))


class BatchPlan:
    """`plan[step]` gives the padded length of a training batch and the trials in it.

    By default an epoch is `steps_per_epoch = ceil(trials / batch_size)` batches. Trials are
    permuted within their group of lengths and cut into full batches; those left over go first in
    the next longer group; the last batch is completed with other trials at random. So in every
    epoch each trial appears at least once, at most `batch_size - 1` rows are repeats, and every
    batch is full. The batches are then permuted.

    With `sessions_per_batch = k` each batch instead takes `k` sessions at random, all equally
    likely, and `batch_size / k` trials from each with replacement, as the Brain-to-Text '25
    baseline does (k = 4). There are no epochs then; `steps_per_epoch` is the number of steps with
    as many rows as there are trials.

    Attributes:
        lengths: the padded lengths that occur, ascending, at most `buckets`.
        steps_per_epoch: see above.
        fingerprint: equal for plans with the same batches; a resumed run is checked against it.
    """

    def __init__(
        self,
        bins: Int[np.ndarray, "trials"],
        sessions: Int[np.ndarray, "trials"],
        *,
        batch_size: int,
        buckets: int,
        seed: int,
        multiple: int,
        sessions_per_batch: int = 0,
    ):
        """Plans for trials of these lengths and sessions.

        Args:
            bins: real bins of every trial.
            sessions: session id of every trial.
            batch_size: rows of every batch.
            buckets: the most padded lengths, each of which is compiled once.
            seed: not negative.
            multiple: padded lengths are multiples of it.
            sessions_per_batch: see above; 0 for none.

        Raises:
            ValueError: a size makes no sense for these trials.
        """
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("buckets", buckets, 1),
            ("multiple", multiple, 1),
            ("seed", seed, 0),
            ("sessions_per_batch", sessions_per_batch, 0),
            ("the number of trials", len(bins), 1),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}; a batch plan needs at least {least}")
        self.batch_size = batch_size
        self.seed = seed
        self.steps_per_epoch = -(-len(bins) // batch_size)
        self._bins = np.asarray(bins)
        self._sessions = [np.flatnonzero(sessions == one) for one in np.unique(sessions)]
        self._sessions_per_batch = sessions_per_batch
        self._epoch: tuple[int, list[tuple[int, np.ndarray]]] = (-1, [])
        if sessions_per_batch:
            if batch_size % sessions_per_batch:
                raise ValueError(
                    f"sessions_per_batch is {sessions_per_batch}, which does not divide batch_size "
                    f"{batch_size}; choose numbers that fit"
                )
            if sessions_per_batch > len(self._sessions):
                raise ValueError(
                    f"sessions_per_batch is {sessions_per_batch}, but only {len(self._sessions)} "
                    "sessions have training trials; choose no more than that"
                )
            # A batch is padded to its longest trial, so the lengths to group are those.
            longest = [self._bins[self._balanced(step)].max() for step in range(256)]
            lengths = np.append(longest, self._bins.max())
            self.lengths = padded_lengths(lengths, buckets, multiple)
        else:
            self.lengths = padded_lengths(self._bins, buckets, multiple, smallest=batch_size)
        group = np.searchsorted(self.lengths, self._bins)
        self._groups = [np.flatnonzero(group == one) for one in range(len(self.lengths))]
        description = (sessions_per_batch, batch_size, seed, self.lengths)
        digest = hashlib.sha256(repr(description).encode())
        digest.update(np.asarray(bins, "<i8").tobytes() + np.asarray(sessions, "<i8").tobytes())
        self.fingerprint = digest.hexdigest()[:16]

    def __getitem__(self, step: int) -> tuple[int, Int[np.ndarray, "batch"]]:
        """The padded length and the trials of batch `step`, which may be any number from 0."""
        if step < 0:
            raise IndexError(f"step {step} is negative")
        if self._sessions_per_batch:
            indices = self._balanced(step)
            longest = self._bins[indices].max()
            return self.lengths[int(np.searchsorted(self.lengths, longest))], indices
        epoch, index = divmod(step, self.steps_per_epoch)
        cached, batches = self._epoch
        if cached != epoch:
            batches = self._batches(epoch)
            self._epoch = (epoch, batches)  # one assignment, because threads read in parallel
        return batches[index]

    def _batches(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        random = np.random.default_rng((self.seed, epoch))
        size = self.batch_size
        batches: list[tuple[int, np.ndarray]] = []
        left = np.zeros(0, np.int64)
        for length, group in zip(self.lengths, self._groups, strict=True):
            pool = np.concatenate([left, random.permutation(group)])
            full = len(pool) - len(pool) % size
            batches += [(length, pool[start : start + size]) for start in range(0, full, size)]
            left = pool[full:]
        if len(left):
            others = np.setdiff1d(np.arange(len(self._bins)), left)
            wanted = size - len(left)
            # A trial is twice in one batch only where there are not enough to fill it.
            pool = others if len(others) >= wanted else np.arange(len(self._bins))
            more = random.choice(pool, wanted, replace=len(pool) < wanted)
            batches.append((self.lengths[-1], np.concatenate([left, more])))
        return [batches[index] for index in random.permutation(len(batches))]

    def _balanced(self, step: int) -> np.ndarray:
        random = np.random.default_rng((self.seed, step))
        rows = self.batch_size // self._sessions_per_batch
        chosen = random.choice(len(self._sessions), self._sessions_per_batch, replace=False)
        return np.concatenate([random.choice(self._sessions[one], rows) for one in chosen])
