"""What a live decoder says in a terminal, and where there is none."""

import io

import pytest

from modessm_jax.live.terminal import Terminal


class Screen(io.StringIO):
    """A terminal: what was written since it was last asked."""

    def isatty(self) -> bool:
        return True

    def read_new(self) -> str:
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


def news(words=(), tentative=(), phonemes=()) -> dict:
    return {"type": "news", "words": words, "tentative": tentative, "phonemes": phonemes}


SENTENCE = {
    "type": "sentence",
    "id": 3,
    "text": "the fox",
    "reference": None,
    "counts": {"used": 9},
}


def test_only_sentences_are_written_to_a_file():
    out = io.StringIO()
    terminal = Terminal(out, words=True)
    terminal.publish(news([("the", 0, 1)], ["fog"]))
    terminal.publish(SENTENCE)
    terminal.publish(SENTENCE | {"id": 4, "reference": "the fog"})
    terminal.publish(SENTENCE | {"counts": {"used": 9, "lost": 2000, "missing_values": 1}})
    assert out.getvalue().splitlines() == [
        "3: the fox",
        "4: the fox  (meant: the fog)",
        "3: the fox  [2,000 lost, 1 missing values]",
    ]


def test_what_was_learned_is_said_below_the_sentence():
    out = io.StringIO()
    terminal = Terminal(out, words=True)
    terminal.publish(SENTENCE)
    terminal.publish({"type": "learned", "text": "recalibrated: 640 ms"})
    assert out.getvalue() == "3: the fox\n   recalibrated: 640 ms\n"


@pytest.mark.parametrize("words", [True, False])
def test_a_sentence_forms_in_place(words):
    screen = Screen()
    terminal = Terminal(screen, words)
    terminal.publish(news([("the", 0, 1)], ["fog"], [("DH", 0, 1), (" | ", 1, 2)]))
    committed = "the" if words else "DH |"
    assert screen.read_new() == f"\r\x1b[2K{committed} \x1b[2mfog\x1b[0m"
    terminal.publish(news((), ["fog"]))
    assert screen.read_new() == ""
    terminal.publish(SENTENCE)
    assert screen.read_new() == "\r\x1b[2K3: the fox\n"
    terminal.publish(news())
    assert screen.read_new() == "\r\x1b[2K \x1b[2m\x1b[0m"


def test_a_long_sentence_fits_the_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    screen = Screen()
    Terminal(screen, words=True).publish(news([("one", 0, 1), ("two", 0, 1)] * 9, ["end"]))
    shown = screen.read_new().replace("\r\x1b[2K", "").replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert len(shown) <= 20 and shown.endswith("one two end")
