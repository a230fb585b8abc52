"""Re-ranking n-best lists with a language model that scores whole sentences.

    scores = score_candidates(utterances, TransformersModel("opt-125m"))
    alpha = tune_alpha(val_utterances, val_scores, references, lm_weight=0.65)
    better = rescore(utterances, scores, alpha=alpha, lm_weight=0.65)

Only scoring is slow: the scores are computed once, and the weight is tuned on them. All scores are
natural logarithms.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from modessm_jax.data.recordings import Key, describe
from modessm_jax.text import total, word_edits
from modessm_jax.words.nbest import Candidate, Utterance

# The natural log-probability of each sentence, its end included.
SentenceModel = Callable[[Sequence[str]], Sequence[float]]

_SENTENCES_AT_ONCE = 16
_STEPS = 20  # of alpha, between 0 and 1


class TransformersModel:
    """A causal language model of the Hugging Face library, run by PyTorch.

    The official pipeline's OPT-6.7b is one, and so are models a thousandth its size. They are
    trained on written text: a sentence is scored with capitals and a full stop, which takes the
    place of the end of the sentence.
    """

    def __init__(self, path: str | Path, device: str = "cpu"):
        """Loads a model and its tokens.

        Args:
            path: folder of the model; nothing is downloaded.
            device: of PyTorch: "cpu", "cuda".

        Raises:
            ImportError: torch or transformers is not installed.
            ValueError: there is no such folder, or no token that begins or ends a text.
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
            raise ValueError(f"{path}: no token begins or ends a text; give another model")
        self._model = library.AutoModelForCausalLM.from_pretrained(path, local_files_only=True)
        self._model.to(device).eval()
        self._device = device

    def __call__(self, sentences: Sequence[str]) -> list[float]:
        """The natural log-probability of each sentence as written, with its full stop."""
        texts = [written(sentence) for sentence in sentences]
        # Texts of similar length together, so that there is little padding.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        scores = [0.0] * len(texts)
        for start in range(0, len(order), _SENTENCES_AT_ONCE):
            batch = order[start : start + _SENTENCES_AT_ONCE]
            for index, score in zip(batch, self._score([texts[i] for i in batch]), strict=True):
                scores[index] = score
        return scores

    def _score(self, texts: list[str]) -> list[float]:
        torch = self._torch
        rows = [
            [self._first, *self._tokens(text, add_special_tokens=False)["input_ids"]]
            for text in texts
        ]
        longest = max(map(len, rows))
        # Padding after a text does not change its score: the model is causal.
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
        ValueError: the model gives more or fewer scores than it got sentences.
    """
    candidates = (one for utterance in utterances for one in utterance.candidates)
    sentences = list(dict.fromkeys(one.text for one in candidates))
    return dict(zip(sentences, map(float, model(sentences)), strict=True))


def rescore(
    utterances: Iterable[Utterance], scores: Mapping[str, float], *, alpha: float, lm_weight: float
) -> list[Utterance]:
    """The lists in their new order, best first; equal totals keep their order.

    A candidate's language score becomes (1 - alpha) lm + alpha score, as in the official pipeline
    of Brain-to-Text '25, and its total changes by `lm_weight` times the difference. What else the
    search added to the total, such as a bonus for each word, stays.

    Args:
        utterances: n-best lists.
        scores: of every sentence in them, from `score_candidates`.
        alpha: 0 leaves the lists as they are, 1 drops the search's own language model.
        lm_weight: the weight that the search gave to its language model.

    Raises:
        ValueError: `alpha` is outside 0 to 1, or a sentence has no score.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha = {alpha}: give a share of the new model from 0 to 1")

    def rescored(candidate: Candidate) -> Candidate:
        if candidate.text not in scores:
            raise ValueError(f"{candidate.text!r} has no score; use score_candidates of the lists")
        change = alpha * (scores[candidate.text] - candidate.lm)
        return replace(
            candidate, lm=candidate.lm + change, total=candidate.total + lm_weight * change
        )

    def best_first(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
        return tuple(sorted(map(rescored, candidates), key=lambda one: -one.total))

    return [replace(each, candidates=best_first(each.candidates)) for each in utterances]


def tune_alpha(
    utterances: Sequence[Utterance],
    scores: Mapping[str, float],
    references: Mapping[Key, str],
    *,
    lm_weight: float,
) -> float:
    """The alpha with the least word error rate, in steps of 0.05; the least of equally good ones.

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

    return min((step / _STEPS for step in range(_STEPS + 1)), key=rate)
