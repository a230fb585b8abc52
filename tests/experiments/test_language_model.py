"""The command line of language models; in this process, but for its exit."""

import gzip
import re

import pytest

from experiments.language_model import main
from modessm_jax.language import pocketsphinx_lm
from modessm_jax.language.lexicon import Lexicon
from modessm_jax.language.ngram import NGram
from modessm_jax.language.phoneme_ngram import TOKENS
from modessm_jax.text import normalize
from tests.language.test_pocketsphinx_lm import trie

TEXT = "The cat sat on the mat.\nA cat sat, and the dog ran!\n\nthe dog sat on a mat\n"


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def run(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


def test_a_text_becomes_a_model_a_lexicon_and_phonemes(text, tmp_path, capsys):
    words, lexicon, phonemes = (
        tmp_path / "lm" / name for name in ("w.arpa", "w.lexicon", "p.arpa")
    )
    run("train", "--text", text, "--out", words)
    assert "writing 12 1-grams, 17 2-grams, 19 3-grams" in capsys.readouterr().out
    assert NGram(words).order == 3 and "cat" in NGram(words)
    run("lexicon", "--words", words, "--no-guess", "--out", lexicon)
    assert "9 words, " in capsys.readouterr().out
    assert set(Lexicon.read(lexicon).words) == set(normalize(" ".join(TEXT.split())).split())
    run("phonemes", "--text", text, "--lexicon", lexicon, "--out", phonemes)
    assert "3 of 3 sentences" in capsys.readouterr().out
    assert NGram(phonemes).order == 4 and TOKENS[-1] in NGram(phonemes)


def test_pruning_makes_a_model_smaller(text, tmp_path):
    sizes = []
    for prune in (0, 0.1):
        out = tmp_path / "lm.arpa"
        run("train", "--text", text, "--order", 2, "--prune", prune, "--out", out)
        sizes.append(out.stat().st_size)
    assert sizes[1] < sizes[0]


def test_a_text_and_additions_become_a_lexicon(text, tmp_path, capsys):
    (tmp_path / "own.txt").write_text("snark S N AA1 R K\n")
    out = tmp_path / "own.lexicon"
    run("lexicon", "--words", text, "--additions", tmp_path / "own.txt", "--out", out)
    assert "10 words" in capsys.readouterr().out and "snark" in Lexicon.read(out).words


def test_guessed_words_are_named(tmp_path, capsys, monkeypatch):
    (tmp_path / "text.txt").write_text("the snark and the boojum\n")
    monkeypatch.setattr(
        "experiments.language_model.guess_pronunciations",
        lambda words: {word: [["B", "UW"]] for word in words},
    )
    out = tmp_path / "words.lexicon"
    run("lexicon", "--words", tmp_path / "text.txt", "--out", out)
    assert "entry: 2 (boojum, snark)" in capsys.readouterr().out
    assert Lexicon.read(out).guessed == {"boojum", "snark"}
    with pytest.raises(SystemExit, match="no pronunciation for 2 words: snark, boojum"):
        run("lexicon", "--words", tmp_path / "text.txt", "--no-guess", "--out", out)


def test_the_report(text, tmp_path, capsys):
    out = tmp_path / "lm.arpa"
    run("train", "--text", text, "--out", out)
    capsys.readouterr()
    (tmp_path / "val.txt").write_text("the cat sat on the mat\nthe snark\nThe dog.\n")
    run("report", "--lm", out, "--text", tmp_path / "val.txt", "--training", text)
    said = capsys.readouterr().out
    assert "3 sentences, 10 words, 1 unknown" in said
    assert f"in {text}: 2 of 3 all sentences (66.67 %)" in said
    assert f"in {text}: 1 of 1 sentences of 5 words or more (100.00 %)" in said
    measured = NGram(out).perplexity([line.split() for line in ("the cat sat on the mat",)])
    run("report", "--lm", out, "--text", text)
    assert "in " not in capsys.readouterr().out.replace("in them", "")
    assert measured.unknown == 0


PLAIN = ["we're here", "yes no", "wait it's him", "the end is here", "so it's you we're told"]
TYPOGRAPHIC = [
    "We\u2019re here.",
    "yes\tno",
    "wait\u2014it\u2019s him",
    "the\u00a0end\u2003is \u201chere\u201d\u2026",
    "so it\u02bcs you \u2013 we\u2019re told",
]


def test_typographic_text_gives_the_model_of_plain_text(tmp_path, capsys):
    figures = {}
    plain = tmp_path / "plain.txt"
    for file, lines in ((plain, PLAIN), (tmp_path / "typographic.txt", TYPOGRAPHIC)):
        file.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        run("train", "--text", file, "--order", 2, "--out", tmp_path / "lm.arpa")
        words = NGram(tmp_path / "lm.arpa").words()
        capsys.readouterr()
        run("report", "--lm", tmp_path / "lm.arpa", "--text", plain, "--training", file)
        figures[file.stem] = words, re.findall(r"[0-9.]+ %|[0-9.]+ with", capsys.readouterr().out)
    assert figures["typographic"] == figures["plain"]
    assert figures["plain"][1][2:] == ["100.00 %", "100.00 %"]


def test_words_that_nobody_can_read_out_are_named_and_counted(tmp_path, capsys):
    file = tmp_path / "text.txt"
    file.write_text("a bold360 plan\nat 5pm or 5pm\n\u043a\u043e\u0442\n", "utf-8")
    for job in ("train", "lexicon"):
        given = ("--words" if job == "lexicon" else "--text", file, "--out", tmp_path / "out")
        run(job, *given)
        assert (
            "4 words with digits or letters of other alphabets are left out: 5pm (2), bold360"
            in (capsys.readouterr().out)
        )
    assert set(Lexicon.read(tmp_path / "out").words) == {"a", "plan", "at", "or"}
    run("train", "--text", file, "--out", tmp_path / "lm.arpa")
    capsys.readouterr()
    run("report", "--lm", tmp_path / "lm.arpa", "--text", file)
    assert "8 words, 4 unknown\nunknown: 5pm (2), bold360 (1)" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["w.lm", "w.ARPA", "w.arpa.txt", "w.3gram", "w"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_model_is_known_by_its_content(text, tmp_path, capsys, name, packed):
    run("train", "--text", text, "--out", tmp_path / "lm.arpa")
    model = (tmp_path / "lm.arpa").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(model) if packed else model)
    run("lexicon", "--words", tmp_path / name, "--out", tmp_path / "lexicon")
    assert "9 words, " in capsys.readouterr().out
    run("report", "--lm", tmp_path / name, "--text", text)
    assert "19 words, 0 unknown" in capsys.readouterr().out


def test_what_is_no_text_is_not_read_as_one(text, tmp_path):
    run("lexicon", "--words", text, "--out", tmp_path / "words.lexicon")
    (tmp_path / "damaged.txt").write_text("made by hand\n\n\\data\\\nngram 1=1\n")
    (tmp_path / "talk.gz").write_bytes(gzip.compress(text.read_bytes()))
    for name, in_text, in_words in (
        ("words.lexicon", " is a lexicon; give a text", " is a lexicon; give a text"),
        ("damaged.txt", " is an ARPA n-gram; give a text", ", line 1: first non-empty line"),
        ("talk.gz", " is a gzip archive; give a text", ": KenLM cannot read it: it is neither"),
    ):
        with pytest.raises(SystemExit, match=name + in_text):
            run("train", "--text", tmp_path / name, "--out", tmp_path / "out")
        with pytest.raises(SystemExit, match=name + in_words):
            run("lexicon", "--words", tmp_path / name, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_in_capitals_gives_the_lexicon_of_its_words(text, tmp_path, capsys):
    run("train", "--text", text, "--out", tmp_path / "lm.arpa")
    head, _, grams = (tmp_path / "lm.arpa").read_text().partition("<unk>")
    marks = re.compile("</?S>")
    upper = marks.sub(lambda mark: mark[0].lower(), grams.upper()).replace("-GRAMS", "-grams")
    (tmp_path / "upper.arpa").write_text(f"{head}<unk>{upper}".replace("\\END", "\\end"))
    for name in ("lm", "upper"):
        out = tmp_path / f"{name}.lexicon"
        run("lexicon", "--words", tmp_path / f"{name}.arpa", "--no-guess", "--out", out)
    assert (tmp_path / "upper.lexicon").read_text() == (tmp_path / "lm.lexicon").read_text()
    figures = []
    for name in ("lm", "upper"):
        capsys.readouterr()
        run("report", "--lm", tmp_path / f"{name}.arpa", "--text", text)
        figures.append(capsys.readouterr().out.partition("\n")[2])
    assert figures[0] == figures[1] and " 0 unknown" in figures[0]


def test_the_embedded_model_is_converted(tmp_path, monkeypatch, capsys):
    (tmp_path / "en-us.lm.bin").write_bytes(trie())
    monkeypatch.setattr(pocketsphinx_lm, "embedded", lambda: tmp_path / "en-us.lm.bin")
    run("embedded", "--out", tmp_path / "english.arpa")
    assert "6 1-grams, 3 2-grams, 1 3-grams" in capsys.readouterr().out
    assert "c" in NGram(tmp_path / "english.arpa")


def test_errors_say_what_to_do(text, tmp_path):
    out = tmp_path / "lm.arpa"
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"the caf\xe9\n")
    (tmp_path / "bad.arpa").write_text("\\data\\\nngram 1=one\n")
    for arguments, words in (
        (("train", "--text", tmp_path / "gone.txt", "--out", out), "No such file.*gone.txt"),
        (
            ("train", "--text", tmp_path / "empty.txt", "--out", out),
            "empty.txt is empty; give a text",
        ),
        (("train", "--text", tmp_path / "latin.txt", "--out", out), "latin.txt is no UTF-8 text"),
        (("train", "--text", text, "--order", 9, "--out", out), "order is 9"),
        (("report", "--lm", tmp_path / "bad.arpa", "--text", text), "bad.arpa, line 2: "),
        (("report", "--lm", out, "--text", text), "lm.arpa: no such file"),
        (("lexicon", "--words", tmp_path / "bad.arpa", "--out", out), "bad.arpa, line 2: "),
    ):
        with pytest.raises(SystemExit, match=words):
            run(*arguments)
    assert not out.exists()


def test_help(capsys):
    for arguments, words in (
        (["--help"], "report\ngives the perplexity"),
        (["train", "--help"], "mild"),
    ):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 0 and words in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2
