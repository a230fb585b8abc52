"""Live decoders of scripted output in processes of their own, to be killed.

For each line of standard input, the name of a file of sentences, one is begun; its process and the
ports of the rig and of the page are printed. It has to be killed before the next line. Importing
takes seconds, and is done once.
"""

import os
import sys
from pathlib import Path

from modessm_jax.live.live import Live
from modessm_jax.live.sentences import Sentences
from modessm_jax.live.server import Server
from modessm_jax.live.sources import in_background
from modessm_jax.live.wire import Listener
from tests.live.scripted import CHANNELS, ScriptedStream


def decode(file: Path) -> None:
    listener = Listener(0)
    with Sentences(file) as sentences, Server("127.0.0.1", 0, {}, sentences) as server:
        print(os.getpid(), listener.port, server.port, flush=True)
        live = Live(ScriptedStream(), CHANNELS, sentences, server.publish, session="a")
        live.run(in_background(iter(listener)))


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if not child:
            decode(Path(line.strip()))
        os.waitpid(child, 0)
