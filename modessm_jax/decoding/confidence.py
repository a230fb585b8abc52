"""How sure the word search is of each word."""

from collections.abc import Sequence

import numpy as np

from modessm_jax.decoding.word_search import WordHypothesis


def word_confidences(hypotheses: Sequence[WordHypothesis]) -> list[float]:
    """For each word of the best hypothesis, the posterior probability that it was said there.

    That is the share of the n-best list, each hypothesis weighing exp(total), that has the word at
    an overlapping time (F. Wessel et al., "Confidence measures for large vocabulary continuous
    speech recognition", IEEE Transactions on Speech and Audio Processing 9(3), 2001). What the list
    leaves out counts for nothing, so that a short list makes words look surer than they are.

    Args:
        hypotheses: as the search returns them, the best first.

    Raises:
        ValueError: there are no hypotheses.
    """
    if not hypotheses:
        raise ValueError("confidences need an n-best list; it is empty")
    totals = np.array([hypothesis.total for hypothesis in hypotheses])
    weights = np.exp(totals - totals.max())
    weights /= weights.sum()
    confidences = []
    for word, (first, last) in zip(hypotheses[0].words, hypotheses[0].times, strict=True):
        agree = [
            any(
                said == word and start < last and first < end
                for said, (start, end) in zip(each.words, each.times, strict=True)
            )
            for each in hypotheses
        ]
        confidences.append(float(weights[agree].sum()))
    return confidences
