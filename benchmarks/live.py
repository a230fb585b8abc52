"""A replay at real pace with its page open in Chromium: latency, memory, compilations.

    python -m benchmarks.live --out benchmarks/results/live.md -- \\
        --workdir RUN --replay DATA --session S --split train
    python -m benchmarks.live --minutes 0.5 --screenshot docs/live.png -- \\
        --workdir RUN --replay DATA --session S

Runs `experiments.live` as a user does and looks at it from outside: at what it sends to a page, at
the memory that the kernel counts for it, and at what JAX says that it compiles. The first minute
warms up: memory grows there, and nothing may be compiled after it. The options after `--` are those
of `experiments.live`.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from benchmarks.chromium import chromium, open_page
from modessm_jax.live.meter import DEADLINE
from modessm_jax.runtime.files import write_text

WARM = 60.0  # seconds
PICTURED = 25.0  # seconds after which the picture is taken


@dataclass
class Seen:
    """What was seen of a live decoder.

    Attributes:
        memory: (seconds since the page was open, resident MB).
        figures: the figures and counts of the last news.
        sentences: that ended.
        news: messages of news.
        compiled: lines in which JAX says that it compiles something, after the warm-up.
    """

    memory: list[tuple[float, float]] = field(default_factory=list)
    last: dict = field(default_factory=dict)
    sentences: int = 0
    news: int = 0
    compiled: list[str] = field(default_factory=list)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.live",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--screenshot", type=Path, help="PNG of the page to write")
    parser.add_argument("--dark", action="store_true", help="the page in dark colours")
    parser.add_argument("options", nargs="+", help="of experiments.live, after --")
    given = parser.parse_args(arguments)
    seen, errors = measure(given.options, given.minutes * 60, given.screenshot, given.dark)
    text = report(seen, errors, given.minutes)
    print(text)
    if given.out is not None:
        write_text(given.out, text)


def measure(
    options: list[str], seconds: float, screenshot: Path | None, dark: bool
) -> tuple[Seen, list[str]]:
    """Runs a live decoder for so long; what was seen of it, and errors of the page."""
    seen = Seen()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiments.live", "--port", "0"]
        command += ["--out", str(Path(folder) / "live.jsonl"), *options]
        said = Path(folder) / "stderr"
        with said.open("w") as log:
            environment = os.environ | {"JAX_LOG_COMPILES": "1"}
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        try:
            try:
                url = page_of(process)
            except RuntimeError as error:
                raise RuntimeError(f"{error}: {said.read_text()[-2000:]}") from error
            with chromium() as browser:
                page, errors = open_page(browser, url, dark=dark)
                listener = threading.Thread(target=listen, args=(url, seen), daemon=True)
                listener.start()
                begun, before = time.monotonic(), 0
                while (now := time.monotonic() - begun) < seconds:
                    page.wait_for_timeout(1000)
                    seen.memory.append((now, resident(process.pid)))
                    if now < WARM:
                        before = said.stat().st_size
                    if screenshot is not None and now > PICTURED:
                        page.screenshot(path=screenshot, timeout=0)
                        screenshot = None
                    if process.poll() is not None:
                        raise RuntimeError(f"it has ended: {said.read_text()[-2000:]}")
            with said.open() as log:
                log.seek(before)
                seen.compiled = [line for line in log if "ompiling" in line]
        finally:
            process.terminate()  # not SIGINT, which a shell's background jobs ignore
            process.wait()
    return seen, errors


def page_of(process: Any) -> str:
    """The address of the page, from what the process of the command prints."""
    for line in process.stdout:
        if found := re.match(r"the page is at (\S+)", line):
            # What else it prints is read, or it would wait for that.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return found[1]
    raise RuntimeError("experiments.live has ended before there was a page")


def listen(url: str, seen: Seen) -> None:
    """Takes what is sent to a page, as a second one."""
    origin = url.rstrip("/")
    address = origin.replace("http", "ws", 1) + "/live"
    with contextlib.suppress(ConnectionClosed), connect(address, origin=origin) as client:  # pyright: ignore
        for received in client:
            message = json.loads(received)
            seen.sentences += message["type"] == "sentence"
            if message["type"] == "news":
                seen.news, seen.last = seen.news + 1, message


def resident(process: int) -> float:
    """Memory of a process in MB, as the kernel counts it."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def report(seen: Seen, errors: list[str], minutes: float) -> str:
    """The table, as Markdown."""
    figures, counts = seen.last["figures"], seen.last["counts"]
    warm = [memory for time, memory in seen.memory if time >= WARM] or [np.nan]
    # Medians of ten seconds, for the allocator takes and gives back by megabytes.
    growth = float(np.median(warm[-10:]) - np.median(warm[:10]))
    lines = [
        ("minutes", f"{minutes:g}"),
        ("sentences", f"{seen.sentences}"),
        ("bins used, lost", f"{counts['used']:,}, {counts['lost']:,}"),
        ("packets", f"{seen.news:,}"),
        ("latency of the last minute: median, 99 %, largest, ms",
         ", ".join(f"{1000 * figures[name]:.1f}" for name in ("p50", "p99", "largest"))),
        ("load of the last minute", f"{100 * figures['load']:.0f} %"),
        (f"deadlines missed ({1000 * DEADLINE:.0f} ms)", f"{figures['missed']}"),
        ("memory at the end, MB", f"{warm[-1]:.0f}"),
        ("growth after the first minute, MB", f"{growth:+.1f}"),
        ("compilations after the first minute", f"{len(seen.compiled)}"),
        ("errors on the page's console", f"{len(errors)}"),
    ]  # fmt: skip
    table = "\n".join(f"| {name} | {value} |" for name, value in lines)
    cores = len(os.sched_getaffinity(0))
    where = f"{platform.machine()}, {cores} cores, Python {platform.python_version()}"
    said = "".join(f"\n- {error}\n" for error in errors)
    return f"| what | |\n| --- | --- |\n{table}\n\n{where}\n{said}"


if __name__ == "__main__":
    main()
