"""Word error rates without a search: cheap enough to choose a model by while it trains."""

from modessm_jax.decoding.greedy_words import GreedyWords
from modessm_jax.text import total, word_edits
from modessm_jax.training.results import Evaluation


def greedy_word_rates(evaluation: Evaluation, words: GreedyWords) -> dict[str, float]:
    """The word error rates of greedily decoded phonemes, read as the nearest words.

    Returns:
        "wer", of the CTC head, and where there is a transducer "rnnt_wer", of it.

    Raises:
        ValueError: a trial has no sentence, or there are no words to recognise.
    """
    said = {"wer": [result.phonemes for result in evaluation.trials]}
    if evaluation.trials[0].rnnt is not None:
        said["rnnt_wer"] = [result.rnnt or [] for result in evaluation.trials]
    references = []
    for result in evaluation.trials:
        if result.trial.sentence is None:
            raise ValueError(
                f"{result.trial.name} has no sentence to compare words with; leave data.lexicon "
                "empty to train without word error rates"
            )
        references.append(result.trial.sentence)
    found = {}
    for name, phonemes in said.items():
        edits = [
            word_edits(reference, " ".join(words(ids)))
            for reference, ids in zip(references, phonemes, strict=True)
        ]
        found[name] = total(edits).rate
    return found
