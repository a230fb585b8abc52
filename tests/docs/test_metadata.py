"""What the package says of itself."""

import configparser

import yaml

from tests.docs.pages import ROOT

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def test_the_wheel_holds_the_package_alone():
    assert SETUP["options.packages.find"]["include"].split() == ["modessm_jax*"]


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    known = SETUP["metadata"]
    assert citation["version"] == known["version"] and citation["license"] == known["license"]
    assert citation["authors"] == [{"name": known["author"]}]
