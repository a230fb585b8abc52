"""The reference of config keys is made of the configs as they are, and pages name no other key."""

import re

import pytest

from docs.configs import PAGE, known_keys, page
from tests.docs.pages import PAGES

SECTIONS = "augment|corruption|data|guard|model|objective|optimizer|stages|training"


def test_the_reference_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m docs.configs`"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_key_exists(path):
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"--config\.([a-z0-9_.]*[a-z0-9_])", text)
    named += re.findall(rf"`((?:{SECTIONS})\.[a-z0-9_.<>]*[a-z0-9_])(?:=[^`]*)?`", text)
    known = known_keys()
    stages = {key.split(".")[1] for key in known if key.count(".") == 2 and "stages." in key}
    known |= {key.replace(f"stages.{name}.", "stages.<name>.") for key in known for name in stages}
    assert [key for key in named if key not in known] == []
