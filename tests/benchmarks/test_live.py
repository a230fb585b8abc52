"""What the benchmark of live decoding reads and reports."""

import io
import os
from types import SimpleNamespace

import pytest

from benchmarks.live import Seen, page_of, report, resident


def test_the_report_leaves_the_first_minute_out():
    memory = [(float(second), 100.0 if second < 60 else 300 + second / 60) for second in range(600)]
    figures = {"p50": 0.004, "p99": 0.02, "largest": 0.05, "load": 0.25, "missed": 3}
    last = {"figures": figures, "counts": {"used": 30_000, "lost": 2}}
    text = report(Seen(memory, last, 40, 29_000, ["Compiling step"]), ["an error"], 10.0)
    for line in (
        "| bins used, lost | 30,000, 2 |",
        "| latency of the last minute: median, 99 %, largest, ms | 4.0, 20.0, 50.0 |",
        "| deadlines missed (80 ms) | 3 |",
        "| growth after the first minute, MB | +8.8 |",
        "| compilations after the first minute | 1 |",
        "- an error",
    ):
        assert line in text.splitlines()


def test_the_address_of_the_page_is_read_from_what_the_command_prints():
    said = io.StringIO("loading\nthe page is at http://127.0.0.1:9/\nmore\n")
    process = SimpleNamespace(stdout=said)
    assert page_of(process) == "http://127.0.0.1:9/"
    with pytest.raises(RuntimeError, match="before there was a page"):
        page_of(SimpleNamespace(stdout=io.StringIO("no page\n")))


def test_memory_is_that_of_the_kernel():
    assert 20 < resident(os.getpid()) < 20_000
