"""A decoder stream fed from a source: what is new is published, and sentences are saved.

What is published are messages of plain JSON values, each with its `type`:

- `news`: after every packet, and before a sentence ends. `seconds` is how long the sentence is by
  now. `bins` and `frames` are arrays of bytes in base64 (see `Live._raster` and `_probabilities`),
  `first_frame` the place of the first of these frames in the sentence. `phonemes` and `words` are
  those that are new, `tentative` the words that may still change, `counts` and (taken twice a
  second) `figures` those of `packets.Counts` and `meter.Figures`, `silent` the channels without a
  value.
- `sentence`: one has ended and is saved, as it is in the file (`sentences.Sentences`).
- `learned`: what a stream that is recalibrated has learned from the sentence before: as it is in
  the file, and in words as `text`.
- `correction`: of a sentence, as it is in the file.
"""

import base64
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float

from modessm_jax.data.normalization import RunningNormalization
from modessm_jax.data.validation import BIN_SECONDS
from modessm_jax.live.meter import Meter
from modessm_jax.live.packets import Event, Gapless, Packet, SentenceEnd, Unreadable
from modessm_jax.live.sentences import Sentences
from modessm_jax.streaming.decoded import News

Message = dict[str, Any]
SHOWN_SECONDS = 30.0
_MEASURED = 25  # packets after which figures are taken again


class Live:
    """Feeds a stream with the bins of a source.

    Args:
        stream: of a decoder; see `Decoder.stream`.
        channels: in a bin.
        sentences: where they are saved.
        publish: takes each message, at once.
        session: name of the session, to be saved.
        endpoints: whether a sentence also ends where the stream finds an endpoint, not only where
            the source ends it.
    """

    def __init__(
        self,
        stream: Any,
        channels: int,
        sentences: Sentences,
        publish: Callable[[Message], None],
        *,
        session: str,
        endpoints: bool = False,
    ):
        self.gapless, self.meter = Gapless(channels), Meter()
        self._stream, self._sentences, self._publish = stream, sentences, publish
        self._session, self._endpoints = session, endpoints
        # What is shown of a channel is relative to its own past, whatever its unit.
        self._shown = RunningNormalization(SHOWN_SECONDS)
        self._past = self._shown.start(channels)
        self._packets, self._figures = 0, asdict(self.meter.figures())
        self._bins = self._frames = 0  # of this sentence
        self._before = asdict(self.gapless.counts)  # the counts when it began

    def run(self, source: Iterable[Event]) -> None:
        """Decodes until the source ends; also a sentence that it does not end."""
        for event in source:
            self.take(event)
        self.end_sentence()

    def take(self, event: Event) -> None:
        """Decodes what came."""
        if isinstance(event, Packet):
            self._decode(event)
        elif isinstance(event, SentenceEnd):
            self.end_sentence(event.reference)
        elif isinstance(event, Unreadable):
            self.gapless.counts.unreadable += 1

    def _decode(self, packet: Packet) -> None:
        began = time.monotonic()
        bins, jumped = self.gapless.take(packet)
        if jumped:
            self._finish(None)
            bins, _ = self.gapless.take(packet)
        self._bins += len(bins)
        news = self._stream.push(bins)
        self._tell(bins, news)
        self.meter.add(packet.arrived, began, time.monotonic())
        self._packets += 1
        if self._packets % _MEASURED == 0:
            self._figures = asdict(self.meter.figures())
        if news.endpoint and self._endpoints:
            self.end_sentence()

    def _tell(self, bins: Float[np.ndarray, "bins channels"], news: News) -> None:
        """Publishes what bins brought."""
        self._publish(
            {
                "type": "news",
                "seconds": round(self._bins * BIN_SECONDS, 2),
                "bins": self._raster(bins),
                "first_frame": self._frames,
                "frames": _probabilities(news.frames),
                "phonemes": news.phonemes,
                "words": news.words,
                "tentative": news.tentative,
                "counts": asdict(self.gapless.counts),
                "silent": np.flatnonzero(self.gapless.silent).tolist(),
                "figures": self._figures,
            }
        )
        self._frames += len(news.frames)

    def end_sentence(self, reference: str | None = None) -> None:
        """Ends the sentence, saves it and begins another; nothing if no bin came."""
        self.gapless.restart()
        self._finish(reference)

    def _finish(self, reference: str | None) -> None:
        if not self._bins:
            return
        began = time.monotonic()
        self._tell(np.zeros((0, len(self.gapless.silent)), np.float32), self._stream.flush())
        decoded = self._stream.finish()
        took = time.monotonic() - began
        counts = asdict(self.gapless.counts)
        sentence = {
            "session": self._session,
            "seconds": round(self._bins * BIN_SECONDS, 2),
            "text": " ".join(decoded.words or map(str.strip, decoded.phonemes)),
            "reference": reference,
            "words": list(decoded.words),
            "word_times": decoded.word_times,
            "phonemes": list(decoded.phonemes),
            "times": decoded.times,
            "log_probabilities": [round(x, 4) for x in decoded.log_probabilities],
            "finished_in": round(took, 4),
            "counts": {name: counts[name] - self._before[name] for name in counts},
        }
        self._bins, self._frames, self._before = 0, 0, counts
        written = self._sentences.add(sentence)
        self._publish({"type": "sentence", **written})
        # Bins that come meanwhile wait at the source.
        learned = self._stream.recalibrate()
        if learned is not None:
            line = self._sentences.add_learned(written["id"], asdict(learned))
            self._publish({"type": "learned", **line, "text": str(learned)})
        self._stream.reset()

    def _raster(self, bins: Float[np.ndarray, "bins channels"]) -> str:
        """A byte for each value, bin by bin: 128 is its channel's mean, and 32 a deviation."""
        self._past, scores = self._shown(self._past, bins, "bins")
        return _base64(np.clip(np.rint(128 + 32 * scores), 0, 255))


def _probabilities(frames: Float[np.ndarray, "frames classes"]) -> str:
    """A byte for each probability, frame by frame: 255 is 1."""
    return _base64(np.rint(255 * np.exp(np.minimum(frames, 0.0))))


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.astype(np.uint8).tobytes()).decode()
