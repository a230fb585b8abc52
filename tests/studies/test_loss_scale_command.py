"""The command line that compares the two costs; in this process, but for its exit."""

import pytest

from studies.loss_scale.__main__ import main


@pytest.mark.slow
def test_the_table_and_the_picture_are_written(tmp_path, capsys):
    out = tmp_path / "new" / "scale"
    main(["--out", str(out), "--frames", "50", "--shares", "0.2", "--draws", "1"])
    text = out.with_suffix(".md").read_text()
    assert text in capsys.readouterr().out
    assert text.count("| 50 | 10 | ") == 2
    assert "1 shapes: ratio" in text and "all within 0.3 to 3.0" in text
    assert out.with_suffix(".png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "4", "--shares", "2"], "8 labels in 4 frames"),
        (["--workdir", "nowhere"], "give the workdir of a training run"),
    ],
)
def test_bad_input_is_refused(arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        main(["--out", str(tmp_path / "scale"), "--draws", "1", *arguments])
    assert not list(tmp_path.iterdir())


def test_numbers_below_one_and_help(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--out", str(tmp_path / "scale"), "--draws", "0"])
    assert end.value.code == 2 and "--draws is 0" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0 and "--workdir RUN" in capsys.readouterr().out
