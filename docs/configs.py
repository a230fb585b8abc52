"""Makes docs/configs.md, the reference of all config keys, from the comments in the configs.

python -m docs.configs
"""

import ast
import io
import tokenize
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import conformer, gru, modessm, multiscale, transformer
from configs.common import LOOKAHEADS

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configs.md"
RECIPES = {
    "configs/multiscale.py": multiscale,
    "configs/modessm.py": modessm,
    "configs/conformer.py": conformer,
    "configs/gru.py": gru,
    "configs/transformer.py": transformer,
}
PUBLISHED = {
    "configs/gru.py": ("t12",),
    "configs/transformer.py": ("t12",),
}  # variants beside `:small` and `:demo`
WHOLE = ("configs/conformer.py",)  # without variants that stream
ORDER = (
    "data", "init", "augment", "corruption", "model", "objective", "optimizer", "training", "guard",
)  # fmt: skip
STAGE = "stages.<name>."
# The functions of the configs that give keys their defaults, and what comes before these keys.
PREFIXES = {"full": "", "stage": STAGE} | {
    name: f"{name}." for name in ("data", "init", "augment", "training", "guard")
}

HEAD = """# Configuration keys

Every key of the recipes, its default and its meaning.

Set any of them on the command line: `--config.optimizer.peak_lr=3e-4`. A key that does not exist is
an error. The columns `:small` and `:demo` are what these variants change. What training does with
them is in [training.md](training.md). This page is made by `python -m docs.configs` from the
comments in `configs/`; change those.
"""


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The values of a config by their dotted keys."""
    if not isinstance(tree, dict | ConfigDict) or not tree:
        return {prefix.removesuffix("."): tree}
    return {
        key: value
        for name, branch in tree.items()
        for key, value in flat(branch, f"{prefix}{name}.").items()
    }


def meanings(file: Path) -> dict[str, str]:
    """The comment of every key in a config's source: on its line, or on the line above."""
    source = file.read_text(encoding="utf-8")
    comments = {
        token.start[0] + token.line.strip().startswith("#"): token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found: dict[str, str] = {}

    def read(node: ast.AST, prefix: str) -> None:
        if not isinstance(node, ast.Dict):
            for child in ast.iter_child_nodes(node):
                read(child, prefix)
            return
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant):
                name = f"{prefix}{key.value}"
                if key.lineno in comments:
                    found.setdefault(name, comments[key.lineno])
                read(value, f"{name}.")

    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name in PREFIXES:
            read(node, PREFIXES[node.name])
    return found


def known_keys() -> set[str]:
    """Every key of every recipe, sections included."""
    keys = {key for recipe in RECIPES.values() for key in flat(recipe.get_config())}
    return {".".join(key.split(".")[:n]) for key in keys for n in range(1, key.count(".") + 2)}


def page() -> str:
    """The text of docs/configs.md.

    Raises:
      ValueError: a key has no comment.
    """
    text, before = HEAD, {}
    for file, recipe in RECIPES.items():
        meaning = meanings(ROOT / "configs" / "common.py") | meanings(ROOT / file)
        variants = [flat(recipe.get_config(variant)) for variant in ("", "small", "demo")]
        keys = [key for key in variants[0] if not key.startswith("stages.")]
        sections: dict[str, list[str]] = {name: [] for name in ORDER}
        for key in sorted(keys, key=list(meaning).index):
            cells = [_value(values, key) for values in variants]
            cells[1:] = ["" if cell == cells[0] else cell for cell in cells[1:]]
            sections[key.split(".")[0]].append(_row(f"`{key}`", *cells, meaning[key]))
        same = [name for name, rows in sections.items() if rows and rows == before.get(name)]
        shown = [row for name, rows in sections.items() if name not in same for row in rows]
        text += f"\n## {file}\n\n"
        if same:
            text += f"As in the recipe above: `{'`, `'.join(same)}`.\n\n"
        text += _table("key", "default", "`:small`", "`:demo`", "meaning", rows=shown)
        if "stages.order" in variants[0]:
            text += _stages(variants, meaning)
        for name in PUBLISHED.get(file, ()):
            text += _changes(name, variants[0], flat(recipe.get_config(name)))
        if file not in WHOLE:
            names = ["small", *(f"small+{name}" for name in LOOKAHEADS)]
            text += _lookaheads({name: flat(recipe.get_config(name)) for name in names})
        before = sections
    return text


def _stages(variants: list[dict[str, Any]], meaning: dict[str, str]) -> str:
    described = {key: words for key, words in meaning.items() if key.startswith("stages.")}
    rows = [_row(f"`{key}`", words) for key, words in described.items()]
    text = "\n### Stages\n\n" + _table("key", "meaning", rows=rows)
    text += "\nTheir defaults; in brackets what `:small` and `:demo` have instead.\n\n"
    order = variants[0]["stages.order"]
    inner = (key.split(".", 2) for key in variants[0] if key.startswith("stages."))
    keys = dict.fromkeys(parts[2] for parts in inner if len(parts) == 3)
    rows = []
    for key in keys:
        cells = []
        for stage in order:
            first, *others = (_value(values, f"stages.{stage}.{key}") for values in variants)
            changed = others != [first, first]
            cells.append(f"{first} ({', '.join(others)})" if changed else first)
        rows.append(_row(f"`{key}`", *cells))
    return text + _table("key", *order, rows=rows)


def _changes(name: str, default: dict[str, Any], variant: dict[str, Any]) -> str:
    keys = [key for key in default if variant[key] != default[key]]
    rows = [_row(f"`{key}`", _value(default, key), _value(variant, key)) for key in keys]
    return f"\n### What `:{name}` changes\n\n" + _table("key", "default", f"`:{name}`", rows=rows)


def _lookaheads(variants: dict[str, dict[str, Any]]) -> str:
    default, *others = variants.values()
    keys = [key for key in default if any(other[key] != default[key] for other in others)]
    rows = [_row(f"`{key}`", *(_value(each, key) for each in variants.values())) for key in keys]
    head = _table("key", *(f"`:{name}`" for name in variants), rows=rows)
    return f"\n### What a look-ahead changes\n\n{head}"


def _value(values: dict[str, Any], key: str) -> str:
    return f"`{values[key]!r}`" if key in values else ""


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _table(*head: str, rows: list[str]) -> str:
    return _row(*head) + _row(*["---"] * len(head)) + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
