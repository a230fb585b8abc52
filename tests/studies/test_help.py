"""Every study explains itself with --help, under the name that runs it."""

import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "corruption",
        "drift",
        "guard_alarms",
        "leaderboard",
        "loss_scale",
        "modes",
        "recordings",
        "stability",
    ],
)
def test_help(name, capsys):
    package = name in ("drift", "leaderboard", "loss_scale", "stability")
    module = importlib.import_module(f"studies.{name}.__main__" if package else f"studies.{name}")
    with pytest.raises(SystemExit) as end:
        module.main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: python -m studies.{name} ")
    question, _, command, *_ = str(module.__doc__).splitlines()
    assert question in shown
    assert command.startswith(f"    python -m studies.{name} ")
