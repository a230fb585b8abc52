"""Fixtures for the tests of streams."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from modessm_jax.live.sentences import Sentences


@pytest.fixture
def opened() -> Iterator[Callable[[Path], Sentences]]:
    """Opens files of sentences, which are closed after the test."""
    with ExitStack() as stack:
        yield lambda path: stack.enter_context(Sentences(path))


@pytest.fixture
def sentences(opened, tmp_path) -> Sentences:
    """A new file of sentences."""
    return opened(tmp_path / "live.jsonl")
