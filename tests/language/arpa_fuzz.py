"""Random ARPA files, sound and damaged, read by `NGram` and by KenLM itself.

python -m tests.language.arpa_fuzz 500
"""

import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kenlm
import numpy as np

from modessm_jax.language.ngram import NGram

MARKS = {"<s>", "</s>", "<unk>", "<UNK>"}
WORDS = [
    "a",
    "b",
    "The",
    "it's",
    "caf\u00e9",
    "x\u0085y",
    "x\u2028y",
    "x\u3000y",
    "-0.2",
    "\\end",
    "0",
]
ODD = [
    "\t",
    " ",
    "\n",
    "\r",
    "\0",
    "\u0085",
    "\u2028",
    "\u3000",
    "\x0b",
    "-",
    "1",
    ".",
    "\\",
    "=",
    "w",
]


def sound(rng: random.Random) -> str:
    """A model of up to four orders over a few words; the parts of every n-gram are n-grams."""
    order = rng.choice([1, 2, 2, 2, 3, 3, 4])
    words = rng.sample(WORDS, rng.randint(2, len(WORDS)))
    unigrams = ["<s>", "</s>", *rng.sample(["<unk>"], rng.randint(0, 1)), *words]
    grams: list[list[tuple[str, ...]]] = [[(word,) for word in unigrams]]
    for _ in range(1, order):
        longer = {(*gram, rng.choice(words)) for gram in rng.sample(grams[-1], len(grams[-1]) // 2)}
        grams.append(sorted(each for each in longer if each[1:] in grams[-1] and each[0] != "</s>"))
    lines = ["\\data\\", *(f"ngram {n}={len(these)}" for n, these in enumerate(grams, 1)), ""]
    for n, these in enumerate(grams, 1):
        lines.append(f"\\{n}-grams:")
        for gram in these:
            backoff = f"\t{rng.uniform(-1, 0):.4f}" if n < order and rng.random() < 0.8 else ""
            lines.append(f"{rng.uniform(-3, 0):.4f}\t{' '.join(gram)}{backoff}")
        lines.append("")
    return "\n".join([*lines, "\\end\\", ""])


def _somewhere(change: Callable[[random.Random, str], str]) -> Callable[[random.Random, str], str]:
    """Changes one line."""

    def damage(rng: random.Random, text: str) -> str:
        lines = text.split("\n")
        place = rng.randrange(len(lines))
        return "\n".join([*lines[:place], change(rng, lines[place]), *lines[place + 1 :]])

    return damage


def _insert(rng: random.Random, text: str) -> str:
    place = rng.randrange(len(text) + 1)
    return text[:place] + rng.choice(ODD) + text[place + rng.randint(0, 1) :]


DAMAGES: dict[str, Callable[[random.Random, str], str]] = {
    "none": lambda rng, text: text,
    "spaces twice": lambda rng, text: text.replace(" ", "  ").replace("ngram  ", "ngram "),
    "tabs for spaces": lambda rng, text: text.replace(" ", "\t").replace("ngram\t", "ngram "),
    "spaces before lines": lambda rng, text: re.sub("\n(?=[-0])", "\n ", text),
    "ends of Windows": lambda rng, text: text.replace("\n", "\r\n"),
    "exponents": lambda rng, text: re.sub(r"(-\d\.\d+)", r"\1e-1", text),
    "words on a line of their own": lambda rng, text: text.replace(" ", "\n").replace(
        "ngram\n", "ngram "
    ),
    "spaces for tabs": lambda rng, text: text.replace("\t", " "),
    "spaces in a line": _somewhere(lambda rng, line: line.replace("\t", " ")),
    "no blank lines": lambda rng, text: re.sub("\n+", "\n", text),
    "no blank line": lambda rng, text: text.replace("\n\n", "\n", 1),
    "blank lines": _somewhere(lambda rng, line: f"{line}\n\n"),
    "other ends": lambda rng, text: text.replace("\n", rng.choice(["\r", "\n\n"])),
    "a back-off": _somewhere(lambda rng, line: f"{line}\t{rng.choice(['-0.3', '0', '0.1', 'x'])}"),
    "a word more": _somewhere(lambda rng, line: f"{line} {rng.choice(WORDS)}"),
    "a count": lambda rng, text: re.sub(
        r"=\d+", f"={rng.choice(['', '0', '2', '3', '-1', 'two', '4 '])}", text, count=1
    ),
    "a line gone": _somewhere(lambda rng, line: ""),
    "a line twice": _somewhere(lambda rng, line: f"{line}\n{line}"),
    "a number": lambda rng, text: re.sub(
        r"-\d\.\d+", rng.choice(["nan", "-inf", "0.5", "-1e-2", "-0,5", "+0"]), text, count=1
    ),
    "cut": lambda rng, text: text[: rng.randrange(len(text) + 1)],
    "around": lambda rng, text: (
        rng.choice(["\n\n", "text\n", "\ufeff"]) + text + rng.choice(["", "x\n"])
    ),
    "no mark": lambda rng, text: text.replace(rng.choice(["<s>", "</s>"]), "<x>"),
    "a character": _insert,
    "characters": lambda rng, text: _insert(rng, _insert(rng, _insert(rng, text))),
}


def loads(path: Path, *, apart: bool = False) -> Any:
    """KenLM's model; None if it refuses the file. Apart, in a process that it may crash."""
    if apart:
        code = "import kenlm, sys; kenlm.Model(sys.argv[1])"
        command = [sys.executable, "-c", code, str(path)]
        return not subprocess.run(command, capture_output=True, check=False).returncode
    config = kenlm.Config()
    config.show_progress = False
    config.arpa_complain = kenlm.ARPALoadComplain.NONE
    try:
        return kenlm.Model(str(path), config)
    except (OSError, UnicodeDecodeError):  # the latter where its message holds part of a letter
        return None


def agree(path: Path, rng: random.Random) -> str | None:
    """Reads a file both ways: None if both load the same model, or else why both refuse it.

    Raises:
        AssertionError: they do not agree.
    """
    try:
        ours, words = NGram(path), NGram(path).words()
    except ValueError as error:
        assert not loads(path, apart="can hold" in str(error)), error
        told = r"(, line \d+: \S|: KenLM cannot read it: it is \S)"
        assert re.match(re.escape(str(path)) + told, str(error)), error
        return str(error)
    theirs = loads(path)
    assert theirs is not None, "KenLM refuses the file"
    tokens = {token.decode() for token in re.split(rb"[\0\t\n\r ]+", path.read_bytes())}
    assert set(words) == {token for token in tokens - MARKS if token in theirs}
    sentences = [[word] for word in words] + [rng.choices(words, k=5) for _ in range(5)] * (
        words != []
    )
    for sentence in sentences:
        # Python's KenLM splits a sentence at U+0085 and the like, which are no space in a file.
        if " ".join(sentence).split() == sentence:
            scores = [score for score, _, _ in theirs.full_scores(" ".join(sentence))]
            np.testing.assert_allclose(
                np.array(ours.word_scores(sentence)) / np.log(10), scores, atol=1e-5
            )
    return None


def fuzz(count: int, folder: Path, seed: int = 0) -> dict[str, Counter[str]]:
    """Reads so many files; how many of each kind of damage were loaded, and refused, by both."""
    rng = random.Random(seed)
    found = {"loaded": Counter[str](), "refused": Counter[str]()}
    for number in range(count):
        kind = list(DAMAGES)[number % len(DAMAGES)]
        path = folder / "fuzzed.arpa"
        path.write_bytes(DAMAGES[kind](rng, sound(rng)).encode())
        found["loaded" if agree(path, rng) is None else "refused"][kind] += 1
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as root:
        table = fuzz(int(sys.argv[1]), Path(root))
    table = {name: Counter({**each, "all": each.total()}) for name, each in table.items()}
    for kind in (*DAMAGES, "all"):
        print(f"{kind:30}" + "".join(f"{table[name][kind]:5} {name} by both" for name in table))
