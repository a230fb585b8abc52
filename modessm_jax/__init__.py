"""Train, evaluate and run speech brain-computer interface decoders in JAX.

`modessm_jax.load(run)` gives a trained decoder; see `modessm_jax.decoder`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modessm_jax.decoder import Decoded, Decoder, load

__all__ = ["Decoded", "Decoder", "load"]


def __getattr__(name: str) -> Any:
    """Imports the decoder, and with it JAX, on first use: `import modessm_jax` stays cheap."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from modessm_jax import decoder

    return getattr(decoder, name)
