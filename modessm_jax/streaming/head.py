"""The head of a model that is read, CTC or transducer, and how: greedily, by a beam, for words."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from modessm_jax.decoding.transducer import Emissions, Transducer, greedy_step
from modessm_jax.evaluation.posteriors import log_probabilities
from modessm_jax.evaluation.scoring import transducer_of
from modessm_jax.language.lexicon import Lexicon
from modessm_jax.language.ngram import NGram
from modessm_jax.losses.transducer import Joint
from modessm_jax.models.build import Functional
from modessm_jax.models.outputs import Outputs
from modessm_jax.search.options import SearchOptions
from modessm_jax.search.transducer import TransducerWordSearch
from modessm_jax.streaming.reading import BeamLabels, BestPath, Frames, GreedyLabels, Reading

CTC, RNNT = "ctc", "rnnt"
HEADS = (CTC, RNNT)
# Wider than any difference of two hypotheses: the width alone limits a beam of phonemes.
_NO_THRESHOLD = 1e9


class Scored(NamedTuple):
    """The frames of a batch on the device, `[batch, frames, ...]`; see `Frames`."""

    mask: Any
    scores: Any
    encoder: Any
    emitted: Any  # None unless a transducer is searched greedily

    def of(self, row: int) -> Frames:
        """The real frames of a row, once they are on the host."""
        real = self.mask[row]
        encoder, emitted = self.encoder, self.emitted
        return Frames(
            self.scores[row, real],
            None if encoder is None else encoder[row, real],
            None if emitted is None else Emissions(*(part[row, real] for part in emitted)),
        )


class Head:
    """A head of a trained model, and the searches that read it.

    Attributes:
        kind: "ctc" or "rnnt".
        words: what `word_search` made; None finds phonemes alone.
    """

    def __init__(self, model: Functional, params: Any, kind: str, width: int):
        """Chooses the head.

        Args:
            model: of the run.
            params: its parameters.
            kind: "ctc" or "rnnt".
            width: of the transducer's beam over phonemes; 1 searches greedily.

        Raises:
            ValueError: there is no such head, or the model lacks it, or the width does not fit it.
        """
        if kind not in HEADS:
            raise ValueError(f"head = {kind!r}: choose ctc or rnnt")
        if kind == RNNT and model.predict is None:
            raise ValueError("this model has no transducer: leave head = 'rnnt' away")
        if width < 1 or (width > 1 and kind == CTC):
            raise ValueError(f"width = {width}: give 1, or with head = 'rnnt' more for a beam")
        self.kind = kind
        self._predict, self._greedy, self._beam = model.predict, kind == RNNT and width == 1, None
        self.words: Any = None
        if width > 1:
            options = SearchOptions(beam=width, beam_threshold=_NO_THRESHOLD, nbest=1)
            transducer = self.transducer(params)
            self._beam = TransducerWordSearch(transducer, None, None, options)

    def word_search(self, params: Any) -> Callable[[Lexicon, NGram | None, SearchOptions], Any]:
        """What makes a search that fits the head, for `words`.

        Raises:
            ImportError: the packages of the search are not installed.
        """
        if self.kind == RNNT:
            return partial(TransducerWordSearch, self.transducer(params))
        # Imported here because its packages are optional.
        from modessm_jax.search.ctc import WordSearch

        return WordSearch

    def transducer(self, params: Any) -> Transducer:
        """The predictor and joint network."""
        predict: Any = self._predict
        return transducer_of(predict, params, Joint(*predict.joint(params)))

    def start(self, params: Any, batch: int) -> Any:
        """The state of the greedy search before the first frame; empty without one."""
        return self.transducer(params).start(batch) if self._greedy else ()

    def score(self, params: Any, state: Any, outputs: Outputs) -> tuple[Any, Scored]:
        """The next state, and what is read of the next frames."""
        scores = log_probabilities(outputs)
        encoder, emitted = None, None
        if self.kind == RNNT:
            found: Any = outputs.transducer
            encoder = found.encoder.values.astype(jnp.float32)
            if self._greedy:
                state, emitted = greedy_step(self.transducer(params), state, found.encoder)
        return state, Scored(scores.mask, scores.values, encoder, emitted)

    def compile(self, width: int) -> None:
        """Compiles the searches of a transducer, so that no trial has to wait for it.

        Args:
            width: of the frames for the joint network.
        """
        for search in (self._beam, self.words):
            if isinstance(search, TransducerWordSearch):
                search(np.zeros((1, width), np.float32))

    def reading(self, stride: int) -> Reading:
        """Begins a sentence, of `stride` bins in a frame."""
        if self._beam is not None:
            phonemes = BeamLabels(self._beam.stream())
        else:
            phonemes = GreedyLabels() if self.kind == RNNT else BestPath()
        return Reading(phonemes, None if self.words is None else self.words.stream(), stride)
