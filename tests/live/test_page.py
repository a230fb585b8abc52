"""The page in Chromium: it shows what is decoded, and saves corrections."""

import json
import time

import pytest

from benchmarks.chromium import chromium, open_page, program
from modessm_jax.live.live import Live
from modessm_jax.live.packets import Packet
from modessm_jax.live.sentences import Sentences
from modessm_jax.live.server import Server
from modessm_jax.phonemes import SYMBOLS
from tests.live.scripted import CHANNELS, ScriptedStream, bins_of, expected

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(program() is None, reason="no Chromium: apt-get install chromium"),
]
ABOUT = {
    "title": "a decoder of RUN",
    "session": "a",
    "channels": CHANNELS,
    "decodes_words": True,
    "symbols": SYMBOLS,
    "bin_seconds": 0.02,
    "frame_seconds": 0.08,
}


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


class Decoding:
    """A live decoder that is fed by hand."""

    def __init__(self, sentences: Sentences, server: Server):
        stream = ScriptedStream()
        stream.learns = 0.0
        self.live = Live(stream, CHANNELS, sentences, server.publish, session="a")
        self.number = 0

    def feed(self, bins: int) -> None:
        for _ in range(bins):
            self.live.take(Packet(self.number, bins_of([self.number]), time.monotonic()))
            self.number += 1


def picture(page, name: str) -> str:
    """What a canvas shows, once it has been drawn."""
    page.wait_for_timeout(100)
    return page.locator(f"#{name}").evaluate("canvas => canvas.toDataURL()")


def text_of(page, place: str) -> str:
    return " ".join(page.locator(place).inner_text().split())


def test_the_page(browser, sentences):
    with Server("127.0.0.1", 0, ABOUT, sentences) as server:
        page, errors = open_page(browser, server.url)
        page.locator("#status.good").wait_for()
        decoding = Decoding(sentences, server)
        before = [picture(page, name) for name in ("raster", "probabilities", "phonemes")]
        decoding.feed(70)
        page.locator("#committed", has_text="brown").wait_for()
        assert text_of(page, "#committed") == "the quick brown"
        assert text_of(page, "#tentative") == "fox"
        assert text_of(page, "#spoken").split() == ["the", "quick", "brown"]
        after = [picture(page, name) for name in ("raster", "probabilities", "phonemes")]
        assert all(one != other for one, other in zip(before, after, strict=True))

        for bins, reference in ((0, "what was said"), (130, None)):
            decoding.feed(bins)
            decoding.live.end_sentence(reference)
        page.locator("#sentence-2").wait_for()
        shown = [" ".join(text.split()) for text in page.locator("#past .text").all_inner_texts()]
        assert shown == [" ".join(expected(bins).words) for bins in (130, 70)]  # the latest first
        assert text_of(page, "#committed") == shown[0] and text_of(page, "#tentative") == ""
        assert "meant: what was said" in text_of(page, "#sentence-1")
        assert text_of(page, "#used") == "200" and text_of(page, "#faults") == "none"
        page.locator("#learned.bad", has_text="sentence 2: recalibrated: loss 0.500").wait_for()

        # From the keyboard alone: to the button of the sentence before, and back to it.
        page.get_by_role("button", name="Correct: the quick brown fox").focus()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.keyboard.type("the slow <b>fox</b>")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Correct: the slow <b>fox</b>").wait_for()
        assert page.evaluate("document.activeElement.closest('li').id") == "sentence-1"
        assert "decoded: the quick brown" in text_of(page, "#sentence-1")
        last = json.loads(sentences.path.read_text().splitlines()[-1])
        assert (last["corrects"], last["text"]) == (1, "the slow <b>fox</b>")
        page.keyboard.press("Enter")
        page.keyboard.type("never mind")
        page.keyboard.press("Escape")
        assert page.locator("form").count() == 0 and len(sentences.shown()) == 2

        page.get_by_role("button", name="Pause signals").press("Enter")
        paused = picture(page, "raster")
        decoding.feed(30)
        assert picture(page, "raster") == paused
        assert text_of(page, "#committed") == "the"
        colours = [background(page)]
        page.emulate_media(color_scheme="dark")
        colours.append(background(page))
        assert colours == ["rgb(250, 248, 244)", "rgb(17, 21, 23)"]
        assert errors == []
        page.close()


def background(page) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


@pytest.mark.slow
def test_the_page_comes_back_when_the_server_does(browser, sentences):
    with Server("127.0.0.1", 0, ABOUT, sentences) as server:
        page, _ = open_page(browser, server.url)
        page.locator("#status.good").wait_for()
        Decoding(sentences, server).feed(50)
        page.locator("#tentative", has_text="brown").wait_for()
    page.locator("#status.bad").wait_for()
    sentences.add({"text": "one that ended meanwhile", "seconds": 1.0})
    with Server("127.0.0.1", server.port, ABOUT, sentences) as again:
        page.locator("#sentence-1").wait_for()
        assert text_of(page, "#sentence") == ""
        Decoding(sentences, again).feed(50)
        page.locator("#tentative", has_text="brown").wait_for()
        page.close()
