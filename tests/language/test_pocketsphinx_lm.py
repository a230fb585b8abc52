"""The trie reader on a file made here, and on the real one."""

import json
import math
import struct

import numpy as np
import pytest

from modessm_jax.language.arpa import MISSING
from modessm_jax.language.ngram import NGram
from modessm_jax.language.pocketsphinx_lm import embedded, read
from modessm_jax.text import normalize

BASE = math.log(1.0001)


def bits(records: list[list[tuple[int, int]]]) -> bytes:
    """Records of (value, width) fields, lowest bits first, and the eight bytes of slack."""
    number = place = 0
    for record in records:
        for value, width in record:
            number |= value << place
            place += width
    return number.to_bytes((place + 7) // 8, "little") + bytes(8)


def trie() -> bytes:
    """Words </s> <s> a b c; bigrams "b a", "a b", "c b"; trigram "b a b"."""
    words = ["</s>", "<s>", "a", "b", "c"]
    tables = np.zeros((3, 65536), "<f4")
    tables[0, :3] = -1000, -2000, -3000
    tables[1, :3] = -100, -200, -300
    tables[2, 7] = -4000
    # The root is the last word; the children of a are [b], those of b are [a, c].
    unigrams = [(-500.0 * i, -10.0 * i, child) for i, child in enumerate([0, 0, 0, 1, 3, 3])]
    bigrams = [(3, 2, 0, 0), (2, 0, 1, 0), (4, 1, 2, 1), (0, 0, 0, 1)]
    widths = (3, 16, 16, 1)
    return b"".join(
        [
            b"Trie Language Model",
            struct.pack("<B3Ii", 3, 5, 3, 1, 1),
            tables.tobytes(),
            *(struct.pack("<ffI", *unigram) for unigram in unigrams),
            bits([list(zip(record, widths, strict=True)) for record in bigrams]),
            bits([[(3, 3), (7, 16)], [(0, 3), (0, 16)]]),
            struct.pack("<i", sum(len(word) + 1 for word in words)),
            *(word.encode() + b"\0" for word in words),
        ]
    )


def test_a_small_trie(tmp_path):
    (tmp_path / "lm.bin").write_bytes(trie())
    model = read(tmp_path / "lm.bin")
    assert model.words == ("</s>", "<s>", "a", "b", "c", "<unk>")
    unigrams, bigrams, trigrams = model.orders
    np.testing.assert_allclose(
        unigrams.log_probs, [0, -500 * BASE, -1000 * BASE, -1500 * BASE, -2000 * BASE, MISSING]
    )
    spelled = [" ".join(model.words[i] for i in ids) for ids in bigrams.ids.tolist()]
    assert spelled == ["b a", "a b", "c b"]
    np.testing.assert_allclose(bigrams.log_probs, np.array([-1000, -2000, -3000]) * BASE)
    np.testing.assert_allclose(bigrams.backoffs, np.array([-300, -100, -200]) * BASE)
    assert trigrams.ids.tolist() == [[3, 2, 3]]
    np.testing.assert_allclose(trigrams.log_probs, [-4000 * BASE])


def test_other_and_damaged_files_are_refused(tmp_path):
    file = tmp_path / "lm.bin"
    file.write_bytes(b"something else")
    with pytest.raises(ValueError, match="no trie of PocketSphinx"):
        read(file)
    whole = trie()
    for length in (25, 2000, len(whole) - 10):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="damaged"):
            read(file)


@pytest.mark.slow
def test_the_embedded_model_predicts_real_sentences(tmp_path, shared_data):
    pytest.importorskip("pocketsphinx", exc_type=ImportError)
    model = read(embedded())
    assert model.sizes == [72548, 2051541, 1669625]
    model.write(tmp_path / "english.arpa")
    ngram = NGram(tmp_path / "english.arpa")
    trials = json.loads((shared_data / "recorded" / "t15_val_baseline.json").read_text())
    measured = ngram.perplexity(normalize(trial["sentence"]).split() for trial in trials)
    assert (measured.words, measured.unknown) == (9445, 6)
    assert measured.known_words == pytest.approx(89.6, abs=0.1)
    state = ngram.start()
    for word in ("i", "do"):
        total = sum(math.exp(ngram.extend(state, w)[1]) for w in model.words if w != "<s>")
        assert total == pytest.approx(1, abs=1e-4)
        state, _ = ngram.extend(state, word)
