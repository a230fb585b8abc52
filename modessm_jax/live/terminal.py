"""What a live decoder says in a terminal."""

import shutil
from collections.abc import Mapping
from typing import Any

from modessm_jax.live.live import Message

_FAINT, _PLAIN, _CLEAR = "\x1b[2m", "\x1b[0m", "\r\x1b[2K"


class Terminal:
    """Writes each sentence as a line; in a terminal also the one that is forming.

    Args:
        out: a text file to write to.
        words: whether words are decoded, or phonemes alone.
    """

    def __init__(self, out: Any, words: bool):
        self._out, self._field = out, "words" if words else "phonemes"
        self._committed: list[str] = []
        self._shown = ""

    def publish(self, message: Message) -> None:
        """Shows a message of `Live`."""
        if message["type"] == "news":
            self._committed += [one[0].strip() for one in message[self._field]]
            if self._out.isatty():
                self._form(" ".join(message["tentative"]))
        elif message["type"] == "sentence":
            clear = _CLEAR if self._out.isatty() else ""
            meant = "" if message["reference"] is None else f"  (meant: {message['reference']})"
            faults = kinds_of(message["counts"] | {"used": 0})
            line = f"{message['id']}: {message['text']}{meant}" + f"  [{faults}]" * bool(faults)
            print(clear + line, file=self._out, flush=True)
            self._committed, self._shown = [], ""
        elif message["type"] == "learned":
            print(f"   {message['text']}", file=self._out, flush=True)

    def _form(self, tentative: str) -> None:
        """Writes the sentence that is forming over what stands there; of a long one the end."""
        committed, room = " ".join(self._committed), shutil.get_terminal_size().columns - 2
        tentative = tentative[-room:]
        committed = committed[-max(0, room - len(tentative)) :] if room > len(tentative) else ""
        text = f"{_CLEAR}{committed} {_FAINT}{tentative}{_PLAIN}"
        if text != self._shown:
            self._out.write(text)
            self._out.flush()
            self._shown = text


def kinds_of(counts: Mapping[str, int]) -> str:
    """Those of `packets.Counts` that are not 0: "7 used, 2 lost"."""
    return ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in counts.items() if n)
