"""The losses against those of torch and torchaudio on the GPU; on the CPU, in the smoke form."""

import subprocess
import sys

from benchmarks.gpu_check import programs


def main() -> None:
    smoke = programs.parser(__doc__).parse_args().smoke
    out = programs.shared_folder() / "losses"
    part, rounds = ("ctc", "1") if smoke else ("gpu", "5")
    command = ["-m", "benchmarks.losses", part, "--rounds", rounds, "--out", str(out)]
    with programs.alone():
        subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True)
    print(out.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
