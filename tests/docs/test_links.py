"""Links of README and docs lead somewhere, and the files that they name are there."""

import re

import pytest

from tests.docs.pages import LANGUAGES, PAGES, ROOT, blocks, prose, spans

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FOLDERS = ("benchmarks", "configs", "docs", "experiments", "modessm_jax", "studies", "tests")
_NAMED = re.compile(rf"(?:{'|'.join(_FOLDERS)})/[\w/.-]*")


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in _LINK.findall(prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    named = [span.split(":")[0] for span in spans(page) if _NAMED.match(span)]
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_page_is_linked_from_the_readme():
    linked = set(_LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert {page.relative_to(ROOT).as_posix() for page in PAGES} - linked == {"README.md"}


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150 and len(text.split()) <= 1200


def test_blocks_have_a_language():
    assert {block.language for block in blocks()} <= LANGUAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_ends_on_its_line(page):
    assert [line for line in prose(page).splitlines() if line.count("`") % 2] == []
