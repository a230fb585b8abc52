"""Files of the field's models, read without running anything that they hold.

Weights are `.npz` or what `torch.save` wrote; settings are YAML, JSON or a pickle. A pickle may
name any function and have it called, so only those are read that name none.
"""

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

# Under these names checkpoints keep a model's state, beside that of the optimiser.
_STATES = ("model_state_dict", "state_dict", "model")
# What wrappers of torch put before each name.
_PREFIXES = ("module.", "_orig_mod.")


class FileError(ValueError):
    """A file that is not what it should be, or that is not safe to read."""


class _PlainUnpickler(pickle.Unpickler):
    """Reads plain values alone: dicts, lists, strings, numbers."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_settings(path: Path) -> dict[str, Any]:
    """Settings of a model, nested dicts of plain values.

    Args:
        path: `.yaml`, `.yml` or `.json`; anything else is taken for a pickle.

    Raises:
        FileError: the file is something else, or a pickle that asks for more than plain values.
    """
    content = path.read_bytes()
    try:
        if path.suffix in (".yaml", ".yml"):
            settings = yaml.safe_load(content)
        elif path.suffix == ".json":
            settings = json.loads(content)
        else:
            settings = _PlainUnpickler(io.BytesIO(content)).load()
    except pickle.UnpicklingError as error:
        raise FileError(
            f"{path} is no pickle of plain values ({error}), and others may run any program. "
            "Write the settings as YAML or JSON"
        ) from error
    # Of a damaged pickle, anything may come.
    except (yaml.YAMLError, ValueError, EOFError, IndexError, KeyError, AttributeError) as error:
        raise FileError(f"{path} cannot be read as settings: {error}") from error
    if not isinstance(settings, dict):
        raise FileError(f"{path} holds a {type(settings).__name__}, not settings by name")
    return settings


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a model by its authors' names.

    Args:
        path: `.npz`; anything else is read by torch, which must be installed (`[import]`).

    Raises:
        FileError: the file is something else, or holds more than weights and plain values.
        ImportError: torch is needed and not installed.
    """
    arrays = _read_npz(path) if path.suffix == ".npz" else _read_torch(path)
    named = {}
    for name, array in arrays.items():
        for prefix in _PREFIXES * 2:  # in either order
            name = name.removeprefix(prefix)
        named[name] = array
    return named


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays}
    except (ValueError, zipfile.BadZipFile) as error:
        raise FileError(f"{path} cannot be read as arrays alone: {error}") from error


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            f"{path} is read by torch: pip install 'modessm_jax[import]', or save the weights as "
            ".npz with numpy"
        ) from error
    # Checkpoints of the official baseline hold error rates that are NumPy numbers. To make one
    # runs nothing of the file's.
    scalar = np.float64(0).__reduce__()[0]
    numbers: list[Any] = [np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32))]
    numbers += [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    try:
        with torch.serialization.safe_globals(numbers):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise FileError(
            f"{path} is not read: it is damaged, or holds more than weights and plain values, "
            f"which may run any program ({str(error).splitlines()[0]})"
        ) from error
    for name in _STATES:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
            break
    if not isinstance(state, dict) or not all(hasattr(x, "numpy") for x in state.values()):
        raise FileError(f"{path} holds no model's state by name")
    return {name: tensor.detach().float().numpy() for name, tensor in state.items()}
