"""Decodes bins as they arrive, in the terminal and on a page.

    python -m experiments.live --workdir RUN --replay DATA --session S --port 8765
    python -m experiments.live --workdir RUN --tcp 8766 --session S --lexicon LEXICON --lm LM.arpa
    python -m experiments.live --workdir RUN --lsl NAME --session S

Bins come from a recording, played again at its own pace (--speed 2: twice as fast; --speed inf: all
at once); from a rig that sends them to a TCP port of this machine, or to standard input; or from a
stream of the Lab Streaming Layer. docs/live.md says how to connect a rig.

With --port there is a page at that port, for this machine alone; with --host also for others, who
need the token in the address that is printed.

Each sentence is saved when it ends, as a line of JSON, in RUN/live.jsonl; so are corrections made
on the page. A replay ends sentences with its trials, a rig where it says so; --endpoints also where
nothing is said for a while. Ctrl-C ends the program; what is being said then is not saved.

With --recalibrate the adapter of the session follows what is recorded: after each sentence it takes
one step without labels, before the next one begins. --save_run keeps it, in a run of its own.
"""

import argparse
import signal
import sys
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

import modessm_jax
from modessm_jax.data.recordings import SPLITS, read_recordings
from modessm_jax.data.validation import BIN_SECONDS
from modessm_jax.live.live import Live, Message
from modessm_jax.live.packets import Event
from modessm_jax.live.sentences import Sentences
from modessm_jax.live.sources import in_background, lab_streaming_layer, replay
from modessm_jax.live.terminal import Terminal, kinds_of
from modessm_jax.live.wire import Listener, read_events
from modessm_jax.phonemes import SYMBOLS
from modessm_jax.recalibration.adapter import Adapter, with_session, write_recalibrated
from modessm_jax.recalibration.unlabelled import METHODS, Options
from modessm_jax.runs.finished import check_new
from modessm_jax.runs.load import load_run
from modessm_jax.runs.sessions import REFUSE, RULES
from modessm_jax.runtime.compile_cache import compile_cache
from modessm_jax.search.options import SearchOptions
from modessm_jax.streaming.head import CTC, HEADS
from modessm_jax.streaming.stream import Stream

_SEARCH = {field.name: field.default for field in fields(SearchOptions) if field.name != "nbest"}


def main(arguments: list[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        live(given)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(str(error)) from error


def live(given: argparse.Namespace) -> None:
    """Decodes what the source gives until it ends, or until Ctrl-C."""
    if given.save_run is not None:
        if given.recalibrate is None:
            raise ValueError("--save_run needs --recalibrate: nothing else changes the run")
        check_new(given.save_run)
    with ExitStack() as stack:
        stack.enter_context(compile_cache(given.workdir / "compiled"))
        words = given.lexicon is not None
        decoder = modessm_jax.load(
            given.workdir,
            head=given.head,
            width=given.width,
            lexicon=given.lexicon,
            lm=given.lm,
            session_map={given.session: given.adapter} if given.adapter else None,
            untrained_sessions=given.untrained_sessions,
            **{name: value for name in _SEARCH if (value := getattr(given, name)) is not None},
        )
        channels = given.channels or decoder.channels
        before = None if given.before is None else _last_block(given.before, given.session)
        options = None if given.recalibrate is None else Options(given.recalibrate)
        stream = decoder.stream(given.session, before=before, recalibrate=options)
        sentences = stack.enter_context(Sentences(given.out or given.workdir / "live.jsonl"))
        publishers = [Terminal(sys.stdout, words).publish]
        if given.port is not None:
            # Imported here because it needs an optional package.
            from modessm_jax.live.server import Server

            about = {
                "title": f"{decoder.config['model']['name']} of {given.workdir.name}",
                "session": given.session,
                "channels": channels,
                "decodes_words": words,
                "recalibrate": given.recalibrate,
                "symbols": SYMBOLS,
                "bin_seconds": BIN_SECONDS,
                "frame_seconds": stream.stride * BIN_SECONDS,
            }
            server = stack.enter_context(Server(given.host, given.port, about, sentences))
            publishers.append(server.publish)
            print(f"the page is at {server.url}", flush=True)

        def publish(message: Message) -> None:
            for one in publishers:
                one(message)

        _warm(decoder.stream(given.session), channels)
        running = Live(
            stream,
            channels,
            sentences,
            publish,
            session=given.session,
            endpoints=given.endpoints,
        )
        ended = False
        try:
            running.run(_source(given, channels))
            ended = True
        except KeyboardInterrupt:
            print()
        if stream.recalibration is not None:
            adapter, checks = stream.recalibration.result()
            print(f"{given.recalibrate}: {checks}")
            if given.save_run is not None:
                _save(given, adapter)
        if ended and given.port is not None:
            print("the source has ended; Ctrl-C ends the page", flush=True)
            with suppress(KeyboardInterrupt):
                signal.pause()
            print()
        print(_summary(running))


def _source(given: argparse.Namespace, channels: int) -> Iterable[Event]:
    if given.replay is not None:
        sessions = [given.session]
        recordings = read_recordings(
            given.replay, given.split, sessions=sessions, expect_channels=channels
        )
        return replay(recordings, given.speed)
    if given.tcp is not None:
        listener = Listener(given.tcp)
        print(f"waiting for a rig at 127.0.0.1, port {listener.port}", flush=True)
        return in_background(iter(listener))
    if given.lsl is not None:
        return in_background(lab_streaming_layer(given.lsl))
    return in_background(read_events(sys.stdin.buffer.read))


def _last_block(root: Path, session: str) -> np.ndarray:
    """The bins of the last training block of a session."""
    recordings = read_recordings(root, "train", sessions=[session])
    blocks = recordings.block_ids.tolist()
    last = [index for index, block in enumerate(blocks) if block == blocks[-1]]
    return np.concatenate([recordings.features(index) for index in last])


def _warm(stream: Stream, channels: int) -> None:
    """Decodes a sentence of nothing: the first one takes longer than those after it."""
    for _ in range(100):
        stream.push(np.zeros((1, channels), np.float32))
    stream.finish()


def _save(given: argparse.Namespace, adapter: Adapter) -> None:
    """Writes a run that has the recalibrated session."""
    run = load_run(given.workdir)
    root = given.replay or Path(run.config["data"]["root"])
    made = with_session(run, given.session, adapter)
    write_recalibrated(given.save_run, given.workdir, made, given.session, root)
    print(f"the recalibrated session is in {given.save_run}", flush=True)


def _summary(running: Live) -> str:
    figures, kinds = running.meter.figures(), kinds_of(asdict(running.gapless.counts))
    late = f"{1000 * figures.p50:.1f} ms median, {1000 * figures.p99:.1f} ms 99 %"
    return f"bins: {kinds or 'none'}\nlatency: {late}; {figures.missed} deadlines missed"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.live",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def add(name: str, what: str, to: Any = parser, **further: Any) -> None:
        to.add_argument(f"--{name}", help=what, **further)

    add("workdir", "folder of a training run", type=Path, required=True)
    add("session", "name of the session that is recorded", required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    add("replay", "folder of session folders, to be played again", source, type=Path)
    add("tcp", "port to take bins of a rig at; 0 for any", source, type=int)
    add("stdin", "take bins from standard input", source, action="store_true")
    add("lsl", "name of a stream of the Lab Streaming Layer", source)
    add("split", "split to be played (val)", choices=SPLITS, default="val")
    add("speed", "factor of the pace of a replay (1)", type=float, default=1.0)
    add("before", "folder of sessions; the last training block begins the normalisation", type=Path)
    add("channels", "channels that are sent (those of the model)", type=int)
    add("port", "port of the page; 0 for any (no page)", type=int)
    add("host", "address of the page (127.0.0.1)", default="127.0.0.1")
    add("out", "file of the sentences (live.jsonl in the workdir)", type=Path)
    add("endpoints", "end sentences also where nothing is said (no)", action="store_true")
    add("recalibrate", "learn from each sentence, by this method (no)", choices=METHODS)
    add("save_run", "folder for the run with the recalibrated session (none)", type=Path)
    add("head", "head of the run (ctc)", choices=HEADS, default=CTC)
    add("width", "hypotheses of the transducer's beam (1)", type=int, default=1)
    add("adapter", "session of training whose adapter is used (its own)")
    add("untrained_sessions", f"adapter otherwise ({REFUSE})", choices=RULES, default=REFUSE)
    add("lexicon", "file of the words to recognise (phonemes alone)", type=Path)
    add("lm", "n-gram, ARPA or KenLM binary (none)", type=Path)
    for name, default in _SEARCH.items():
        add(name, f"of the word search ({default:g})", type=type(default))
    return parser


if __name__ == "__main__":
    main()
