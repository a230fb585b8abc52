"""The table and the picture of several seeds, from runs written by hand."""

import json

from studies.recordings import main


def write_run(folder, seed: int, per: float) -> None:
    folder.mkdir()
    val = {"per": per, "per_no_silence": per / 2, "nats_per_label": 0.25}
    results = {"val": val, "steps": 8, "wall_seconds": 60.0 * seed, "input_stall": 0.01}
    results |= {"parameters": 1234, "config": {"training": {"seed": seed}}}
    (folder / "results.json").write_text(json.dumps(results))
    lines = [{"step": 4, "per": 0.5}, {"step": 8, "loss": 1.0}, {"step": 8, "per": per}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_seeds_are_summed_up(tmp_path, capsys):
    write_run(tmp_path / "0", 1, 0.1)
    write_run(tmp_path / "1", 3, 0.2)
    main(["--out", str(tmp_path / "out"), f"digits={tmp_path / '0'},{tmp_path / '1'}"])
    text = (tmp_path / "out.md").read_text()
    assert text in capsys.readouterr().out
    figures = "15.00 % | 10.00 % to 20.00 % | 7.50 % | 0.250 | 8 | 3.0 | 1.00 % | 1,234 |"
    assert text.splitlines()[2] == f"| digits | 2 | {figures}"
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
