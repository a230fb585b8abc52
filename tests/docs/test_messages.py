"""The messages that the page on troubleshooting explains are messages of the code."""

import ast
import re

import pytest

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
MESSAGES = re.findall(r"^\| `([^`]+)`", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
OURS = [message for message in MESSAGES if not message.startswith("No module named")]


def text_of(node: ast.AST) -> str | None:
    """A string of the source, with `...` for what is put into it; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "..." for part in node.values)
    return None


@pytest.fixture(scope="module")
def texts() -> list[str]:
    files = [
        file for room in ("modessm_jax", "experiments") for file in (ROOT / room).rglob("*.py")
    ]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    found = [text_of(node) for tree in trees for node in ast.walk(tree)]
    return [re.sub(r"%[sd]", "...", text) for text in found if text]


@pytest.mark.parametrize("message", OURS)
def test_the_code_has_the_message(message, texts):
    assert any(message in text for text in texts)
