import math

import pytest

from modessm_jax.words import rescoring
from modessm_jax.words.nbest import Candidate, Utterance
from modessm_jax.words.rescoring import (
    TransformersModel,
    rescore,
    score_candidates,
    tune_alpha,
    written,
)

LM_WEIGHT = 0.5


class Letters:
    """A model of sentences that likes few letters, and records its calls."""

    def __init__(self):
        self.calls: list[list[str]] = []

    def __call__(self, sentences):
        self.calls.append(list(sentences))
        return [-float(len(sentence)) for sentence in sentences]


def listed(number: int, *candidates: tuple[str, float, float]) -> Utterance:
    """Of (text, acoustic, lm): in total also a bonus of a nat for each word."""
    return Utterance(
        "s",
        1,
        number,
        tuple(
            Candidate(text, acoustic, lm, acoustic + LM_WEIGHT * lm + len(text.split()))
            for text, acoustic, lm in candidates
        ),
    )


LISTS = [
    listed(0, ("a very long one", -1.0, -2.0), ("short", -2.0, -3.0)),
    listed(1, ("short", -1.0, -8.0), ("", -4.0, -9.0)),
    listed(2),
]


def test_every_sentence_is_scored_once():
    model = Letters()
    scores = score_candidates(LISTS, model)
    assert model.calls == [["a very long one", "short", ""]]
    assert scores == {"a very long one": -15.0, "short": -5.0, "": 0.0}
    with pytest.raises(ValueError, match="zip"):
        score_candidates(LISTS, lambda sentences: [0.0])


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_totals_are_what_the_search_would_have_given_with_the_mixed_score(alpha):
    scores = score_candidates(LISTS, Letters())
    for before, after in zip(
        LISTS, rescore(LISTS, scores, alpha=alpha, lm_weight=LM_WEIGHT), strict=True
    ):
        wanted = {
            one.text: (one.acoustic, (1 - alpha) * one.lm + alpha * scores[one.text])
            for one in before.candidates
        }
        assert after.key == before.key
        assert {one.text for one in after.candidates} == set(wanted)
        totals = [one.total for one in after.candidates]
        assert totals == sorted(totals, reverse=True)
        for one in after.candidates:
            acoustic, lm = wanted[one.text]
            assert one.acoustic == acoustic and one.lm == pytest.approx(lm)
            total = acoustic + LM_WEIGHT * lm + len(one.text.split())
            assert one.total == pytest.approx(total)


def test_alpha_0_changes_nothing_and_alpha_1_the_order():
    scores = score_candidates(LISTS, Letters())
    assert rescore(LISTS, scores, alpha=0.0, lm_weight=LM_WEIGHT) == LISTS
    assert rescore(LISTS, scores, alpha=1.0, lm_weight=LM_WEIGHT)[0].text == "short"


def test_alpha_is_tuned_for_the_fewest_word_errors(monkeypatch):
    monkeypatch.setattr(rescoring, "_STEPS", 100)
    scores = score_candidates(LISTS, Letters())
    wanted = {found.key: text for found, text in zip(LISTS, ["short", "short", "so"], strict=True)}
    # "short" overtakes where 0.75 alpha * 10 / 1.5 nats make up for the 3.5 it is behind.
    ahead = LISTS[0].candidates[0].total - LISTS[0].candidates[1].total
    gain = LM_WEIGHT * ((-5 + 3) - (-15 + 2))
    best = tune_alpha(LISTS, scores, wanted, lm_weight=LM_WEIGHT)
    assert best == math.ceil(100 * ahead / gain) / 100
    wanted = {**wanted, LISTS[0].key: "a very long one"}
    assert tune_alpha(LISTS, scores, wanted, lm_weight=LM_WEIGHT) == 0
    with pytest.raises(ValueError, match="s/block 1/trial 0 has no reference"):
        tune_alpha(LISTS, scores, {}, lm_weight=LM_WEIGHT)


def test_unfit_arguments_are_refused():
    with pytest.raises(ValueError, match=r"alpha = 1\.5"):
        rescore(LISTS, {}, alpha=1.5, lm_weight=1.0)
    with pytest.raises(ValueError, match="'a very long one' has no score"):
        rescore(LISTS, {"short": 0.0}, alpha=0.5, lm_weight=1.0)


def test_sentences_are_shown_as_people_write_them():
    assert written("i said i'm in") == "I said I'm in."
    assert written("") == "."


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    def nowhere(name):
        raise ImportError(name)

    monkeypatch.setattr("modessm_jax.words.rescoring.import_module", nowhere)
    with pytest.raises(ImportError, match=r"pip install 'modessm_jax\[transformers\]'"):
        TransformersModel(tmp_path)


# Without PyTorch these are left out; the extra `transformers` brings it.


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random model of five words."""
    torch, library = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: n for n, word in enumerate(["<s>", "so", "So", "it", "goes", "."])}
    tokens = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<s>"))
    tokens.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("tiny")
    library.PreTrainedTokenizerFast(tokenizer_object=tokens, bos_token="<s>").save_pretrained(
        folder
    )
    torch.manual_seed(0)
    sizes = library.GPT2Config(vocab_size=6, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    library.GPT2LMHeadModel(sizes).save_pretrained(folder)
    return folder


SENTENCES = ["so it goes", "so", "", "it goes so so it", "goes"]


def test_a_neural_score_is_the_sum_over_all_tokens_whatever_the_batch(tiny, monkeypatch):
    torch, library = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = library.GPT2LMHeadModel.from_pretrained(tiny).eval()
    so_it_goes = torch.tensor([[0, 2, 3, 4, 5]])  # <s> So it goes .
    with torch.inference_mode():
        logs = model(so_it_goes).logits[0, :-1].log_softmax(1)
    wanted = float(logs[range(4), so_it_goes[0, 1:]].sum())
    monkeypatch.setattr(rescoring, "_SENTENCES_AT_ONCE", 2)
    scores = TransformersModel(tiny)(SENTENCES)
    assert scores[0] == pytest.approx(wanted, rel=1e-5)
    for sentence, score in zip(SENTENCES, scores, strict=True):
        (alone,) = TransformersModel(tiny)([sentence])
        assert score == pytest.approx(alone, rel=1e-5)


def test_a_neural_model_gives_probabilities(tiny):
    """Those of all that may be said in two tokens, and those of a first token, sum to 1."""
    model = TransformersModel(tiny)
    words = ["<s>", "so", "So", "it", "goes", "."]
    model_scores = model._score([f"{a} {b}" for a in words for b in words])
    assert sum(map(math.exp, model_scores)) == pytest.approx(1, rel=1e-5)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        TransformersModel(tmp_path / "nowhere")
