"""The config that a kept run was made with: `--config=config.py:RUN`."""

import json
from pathlib import Path

from ml_collections import ConfigDict


def get_config(run: str) -> ConfigDict:
    """Of the run in that folder."""
    return ConfigDict(json.loads(Path(run, "config.json").read_text(encoding="utf-8")))
