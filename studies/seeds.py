"""Error rates of several seeds of a recipe together, and what they differ by from another way."""

from collections.abc import Sequence

from modessm_jax.text import Edits, bootstrap_interval, percent, total


def together(seeds: Sequence[Sequence[Edits]]) -> list[Edits]:
    """Each trial's edits, summed over the seeds, which all decoded the same trials."""
    return [total(of_seeds) for of_seeds in zip(*seeds, strict=True)]


def difference(ours: Sequence[Sequence[Edits]], theirs: Sequence[Sequence[Edits]]) -> str:
    """Error rate of ours less theirs, all seeds together, and its 95 % interval over trials."""
    one, other = together(ours), together(theirs)
    low, high = bootstrap_interval(one, seed=0, against=other)
    mean = total(one).rate - total(other).rate
    return f"{percent(mean)} ({percent(low)} to {percent(high)})"
