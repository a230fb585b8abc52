"""Ranking n-best lists anew with a language model that scores whole sentences.

    scores = score_candidates(utterances, TransformersModel("opt-125m"))
    alpha = tune_alpha(val_utterances, val_scores, references, lm_weight=0.65)
    better = rescore(utterances, scores, alpha=alpha, lm_weight=0.65)

Scoring is slow and the rest is not, so that the scores are taken once and the weight tuned on them.
All scores are natural logarithms.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from modessm_jax.data.recordings import Key, describe
from modessm_jax.language.ngram import NGram
from modessm_jax.text import total, word_edits
from modessm_jax.words.nbest import Candidate, Utterance


@runtime_checkable
class SentenceModel(Protocol):
    """A language model of whole sentences."""

    def score(self, sentences: Sequence[str]) -> Sequence[float]:
        """The natural log-probability of each sentence, its end included."""
        ...


class NGramModel:
    """An n-gram as a `SentenceModel`, such as one too large to search with."""

    def __init__(self, ngram: NGram):
        self.ngram = ngram

    def score(self, sentences: Sequence[str]) -> list[float]:
        """The natural log-probability of each sentence, its end included."""
        return [self.ngram.score(sentence.split()) for sentence in sentences]


class TransformersModel:
    """A causal language model of the Hugging Face library, run by PyTorch.

    The official pipeline's OPT-6.7b is one, and so are models a thousandth its size. They know
    written text: a sentence is scored with capitals and a full stop, which stands for its end.
    """

    def __init__(self, path: str | Path, *, device: str = "cpu", batch: int = 16):
        """Loads a model and its tokens.

        Args:
            path: folder of the model; nothing is downloaded.
            device: of PyTorch: "cpu", "cuda".
            batch: sentences scored at a time.

        Raises:
            ImportError: torch or transformers is not installed.
            ValueError: there is no such folder, or the tokens have none to begin a sentence with.
        """
        try:
            self._torch: Any = import_module("torch")
            library = import_module("transformers")
        except ImportError as error:
            raise ImportError(
                "neural models need: pip install 'modessm_jax[transformers]'"
            ) from error
        if not Path(path).is_dir():
            raise ValueError(f"{path}: no such folder; give one that save_pretrained wrote")
        self._tokens = library.AutoTokenizer.from_pretrained(path, local_files_only=True)
        # Some models begin their texts with the token that ends them.
        first = self._tokens.bos_token_id
        self._first = self._tokens.eos_token_id if first is None else first
        if self._first is None:
            raise ValueError(f"{path}: its tokens have none to begin or end a text with")
        self._model = library.AutoModelForCausalLM.from_pretrained(path, local_files_only=True)
        self._model.to(device).eval()
        self._device, self._batch = device, batch

    def score(self, sentences: Sequence[str]) -> list[float]:
        """The natural log-probability of each sentence as written, with its full stop."""
        texts = [written(sentence) for sentence in sentences]
        # Of like length together, so that little is padding.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        scores = [0.0] * len(texts)
        for start in range(0, len(order), self._batch):
            places = order[start : start + self._batch]
            for place, score in zip(places, self._score([texts[p] for p in places]), strict=True):
                scores[place] = score
        return scores

    def _score(self, texts: list[str]) -> list[float]:
        torch = self._torch
        rows = [
            [self._first, *self._tokens(text, add_special_tokens=False)["input_ids"]]
            for text in texts
        ]
        longest = max(map(len, rows))
        # What stands behind a sentence cannot change it: the model looks back only.
        padded = torch.tensor([row + [self._first] * (longest - len(row)) for row in rows])
        with torch.inference_mode():
            logits = self._model(padded.to(self._device)).logits[:, :-1].float()
            following = padded[:, 1:, None].to(self._device)
            chosen = logits.gather(2, following)[..., 0] - logits.logsumexp(2)
        values = chosen.cpu().double().numpy()
        return [float(of[: len(row) - 1].sum()) for of, row in zip(values, rows, strict=True)]


def written(sentence: str) -> str:
    """A normalised sentence as people write it: with a capital, a full stop, and a capital I."""
    words = [
        word.capitalize() if word == "i" or word.startswith("i'") else word
        for word in sentence.split()
    ]
    text = " ".join(words)
    return f"{text[:1].upper()}{text[1:]}."


def score_candidates(utterances: Iterable[Utterance], model: SentenceModel) -> dict[str, float]:
    """The model's score of every different sentence in the lists.

    Raises:
        ValueError: the model gives another number of scores than it got sentences.
    """
    candidates = (one for utterance in utterances for one in utterance.candidates)
    sentences = list(dict.fromkeys(one.text for one in candidates))
    return dict(zip(sentences, map(float, model.score(sentences)), strict=True))


def rescore(
    utterances: Iterable[Utterance], scores: Mapping[str, float], *, alpha: float, lm_weight: float
) -> list[Utterance]:
    """The lists in their new order, best first; what is equal keeps its order.

    A candidate's language score becomes (1 - alpha) lm + alpha score, as in the official pipeline
    of Brain-to-Text '25, and its total changes by `lm_weight` times the difference: whatever else
    the search added to the total, such as a bonus for each word, stays.

    Args:
        utterances: n-best lists.
        scores: of every sentence in them, from `score_candidates`.
        alpha: 0 leaves the lists as they are, 1 forgets the search's own language model.
        lm_weight: of a nat of the search's language model in the total.

    Raises:
        ValueError: `alpha` is outside 0 to 1, or a sentence has no score.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha = {alpha}: give a share of the new model from 0 to 1")

    def anew(candidate: Candidate) -> Candidate:
        if candidate.text not in scores:
            raise ValueError(f"{candidate.text!r} has no score; use score_candidates of the lists")
        change = alpha * (scores[candidate.text] - candidate.lm)
        return replace(
            candidate, lm=candidate.lm + change, total=candidate.total + lm_weight * change
        )

    return [
        replace(
            utterance,
            candidates=tuple(sorted(map(anew, utterance.candidates), key=lambda one: -one.total)),
        )
        for utterance in utterances
    ]


def tune_alpha(
    utterances: Sequence[Utterance],
    scores: Mapping[str, float],
    references: Mapping[Key, str],
    *,
    lm_weight: float,
    steps: int = 20,
) -> float:
    """The alpha of least word error rate, of steps + 1 between 0 and 1; the least of equal ones.

    Use it on validation sentences only.

    Raises:
        ValueError: a trial has no reference, or no reference has words.
    """
    for utterance in utterances:
        if utterance.key not in references:
            raise ValueError(f"{describe(utterance.key)} has no reference; tune on validation data")

    def rate(alpha: float) -> float:
        ranked = rescore(utterances, scores, alpha=alpha, lm_weight=lm_weight)
        return total(word_edits(references[one.key], one.text) for one in ranked).rate

    return min((step / steps for step in range(steps + 1)), key=rate)
