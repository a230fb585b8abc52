"""Every command in README and docs is one that the program takes: all of it, values included."""

import argparse
import configparser
import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from absl import flags

from tests.docs.pages import PAGES, ROOT, commands, spans

COMMANDS = list({str(command): command for command in commands()}.values())
# What a shell is told that is no program of this project.
SHELL = ([".", ".venv/bin/activate"],)


class ParsedError(Exception):
    """Ends a program once it has read its command line; `args[0]` is the parser."""


@pytest.fixture
def no_new_flags():
    """Flags that a module defines, and the values it was given, are gone after the test."""
    before = set(flags.FLAGS)
    yield
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)
    for module in ("experiments.train", "experiments.simulate"):
        sys.modules.pop(module, None)


@pytest.fixture
def stops_when_parsed(monkeypatch):
    """Programs end with `ParsedError` where they would begin their work."""
    parse = argparse.ArgumentParser.parse_args

    def parse_args(self, *args, **kwargs):
        parse(self, *args, **kwargs)
        raise ParsedError(self)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)


# ml_collections loads configs in a way that Python is about to drop.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_the_program_takes_the_command(command, monkeypatch, stops_when_parsed, no_new_flags):
    monkeypatch.chdir(ROOT)
    words = command.words
    while re.fullmatch(r"[A-Z_]+=\S+", words[0]):
        words = words[1:]
    if words in SHELL:
        return
    program, *arguments = words
    if program == "make":
        subprocess.run(["make", "--dry-run", *arguments], check=True, capture_output=True)
    elif program == "pip":
        check_installation(arguments)
    elif program == "pytest":
        assert all((ROOT / path).exists() for path in arguments)
    elif program == "python" and arguments[0] == "-c":
        exec(arguments[1], {})
    else:
        assert (program, arguments[0]) == ("python", "-m"), f"{command}: unknown program"
        check_module(*arguments[1:], monkeypatch=monkeypatch)


def check_installation(arguments: list[str]) -> None:
    """`pip install [--editable] '.[extra]'`, of an extra that there is."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert arguments[0] == "install" and set(arguments[1:-1]) <= {"--editable"}
    wanted = re.fullmatch(r"\.\[(\w+)\]", arguments[-1])
    assert wanted and wanted[1] in setup["options.extras_require"]


def check_module(name: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m name arguments`, up to where it would begin its work."""
    file = source_of(name)
    text = file.read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [str(file), *arguments])
    if "absl import app" in text:
        importlib.import_module(name)
        flags.FLAGS.unparse_flags()
        assert flags.FLAGS(sys.argv) == sys.argv[:1]
        flags.FLAGS.unparse_flags()
    elif "ArgumentParser" in text:
        try:
            main_of(name)()
        except ParsedError:
            return
        except SystemExit as end:  # of --help
            assert end.code == 0
        else:
            pytest.fail(f"{name} reads no command line")
    else:
        assert not arguments, f"{name} takes no arguments"


def source_of(name: str) -> Path:
    """The file that `python -m name` runs."""
    path = ROOT / name.replace(".", "/")
    file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    assert file.exists(), f"there is no {name}"
    return file


def main_of(name: str):
    """What `python -m name` calls."""
    package = source_of(name).name == "__main__.py"
    module: ModuleType = importlib.import_module(f"{name}.__main__" if package else name)
    return module.main


def test_every_option_in_the_prose_exists(monkeypatch):
    of_absl = ("config", "distributed", "overwrite", "compare", "tuning_loss", "labels")
    known = {f"--{name}" for name in of_absl}
    for file in sorted((ROOT / "experiments").glob("*.py")):
        if "ArgumentParser" in file.read_text(encoding="utf-8"):
            known |= options_of(f"experiments.{file.stem}", monkeypatch)
    known |= options_of("studies.leaderboard", monkeypatch)
    named = {
        option
        for page in PAGES
        for span in spans(page)
        if not span.startswith(("pip", "python", "tensorboard"))
        for option in re.findall(r"(?<!\S)(--[a-z_-]+)(?=[ =]|$)", span)
    }
    assert named - known - {"--root"} == set()  # of an earlier release, in CHANGELOG.md


def options_of(name: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The options of a module's parser and of its jobs."""

    def parse_args(self, *args, **kwargs):
        raise ParsedError(self)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    with pytest.raises(ParsedError) as end:
        main_of(name)()
    parsers, found = [end.value.args[0]], set()
    for parser in parsers:
        for action in parser._actions:
            found |= set(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return found
