"""The US-English trigram inside the `pocketsphinx` package (BSD licence), read as arrays.

Its file holds a trie of reversed n-grams (the last word is the root) in the layout of
PocketSphinx's `ngram_model_trie.c`: a header; for each order above the first a table of 65,536
quantised probabilities, followed by one of back-offs unless the order is the highest; the unigrams;
for each further order an array of bit-packed records (word, back-off, probability, first child; of
the highest order word and probability), the last record closing the one before it; the words.
Numbers are logarithms to the base 1.0001.
"""

import importlib.util
import math
import struct
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from modessm_jax.language.arpa import MISSING, UNKNOWN, BackoffModel, NGrams

_MAGIC = b"Trie Language Model"
_CODES = 1 << 16
_CODE_BITS = 16
_UNIGRAM = np.dtype([("log_prob", "<f4"), ("backoff", "<f4"), ("child", "<u4")])
_NATS = math.log(1.0001)
# PocketSphinx reads records eight bytes at a time, so that the file has as many more.
_SLACK = 8


def embedded() -> Path:
    """The file of the model.

    Raises:
        ImportError: `pocketsphinx` is not installed.
    """
    # Found without importing: the package itself needs a sound library.
    package = importlib.util.find_spec("pocketsphinx")
    if package is None or not package.submodule_search_locations:
        raise ImportError("the embedded model needs: pip install 'modessm_jax[words]'")
    return Path(package.submodule_search_locations[0]) / "model" / "en-us" / "en-us.lm.bin"


def read(path: Path) -> BackoffModel:
    """Reads a trie model, and adds the unknown word it lacks.

    Raises:
        ValueError: the file is no trie of PocketSphinx, or is cut short.
    """
    data = path.read_bytes()
    if not data.startswith(_MAGIC):
        raise ValueError(f"{path}: no trie of PocketSphinx; reinstall the package pocketsphinx")
    try:
        return _parse(data)
    except (ValueError, IndexError, struct.error) as error:
        raise ValueError(f"{path}: damaged ({error}); reinstall pocketsphinx") from error


def _parse(data: bytes) -> BackoffModel:
    place = len(_MAGIC)
    order = data[place]
    sizes = struct.unpack_from(f"<{order}I", data, place + 1)
    place += 1 + 4 * order + 4  # the last 4 name the kind of quantisation, of which there is one

    tables = np.frombuffer(data, "<f4", _CODES * (2 * (order - 2) + 1), place)
    tables = tables.reshape(-1, _CODES)
    place += tables.nbytes
    unigrams = np.frombuffer(data, _UNIGRAM, sizes[0] + 1, place)
    place += unigrams.nbytes

    orders = [
        NGrams(
            np.arange(sizes[0], dtype=np.int32)[:, None],
            _nats(unigrams["log_prob"][:-1]),
            _nats(unigrams["backoff"][:-1]),
        )
    ]
    children = unigrams["child"].astype(np.int64)
    word_bits = sizes[0].bit_length()
    for n in range(2, order + 1):
        highest = n == order
        widths = [word_bits, _CODE_BITS]
        if not highest:
            widths = [word_bits, _CODE_BITS, _CODE_BITS, sizes[n].bit_length()]
        size = (sum(widths) * (sizes[n - 1] + 1) + 7) // 8 + _SLACK
        packed = np.frombuffer(data, np.uint8, size, place)
        place += size
        words, *codes = _unpack(packed, widths, sizes[n - 1] + 1)
        roots = np.repeat(np.arange(len(children) - 1), np.diff(children))
        # The header counts a few records more than there are roots for.
        count = len(roots)
        # The root stands for the later words, the record's own is the oldest.
        ids = np.column_stack([words[:count].astype(np.int32), orders[-1].ids[roots]])
        table = tables[2 * (n - 2) :]
        if highest:
            log_probs, backoffs = table[0][codes[0][:count]], np.zeros(count)
        else:
            log_probs, backoffs = table[0][codes[1][:count]], table[1][codes[0][:count]]
            children = codes[2][: count + 1]
        orders.append(NGrams(ids, _nats(log_probs), _nats(backoffs)))
    (length,) = struct.unpack_from("<i", data, place)
    words = data[place + 4 : place + 4 + length].decode("utf-8").split("\0")[:-1]
    if len(words) != sizes[0]:
        raise ValueError(f"{len(words)} words where {sizes[0]} are promised")
    with_unknown = NGrams(
        np.arange(sizes[0] + 1, dtype=np.int32)[:, None],
        np.append(orders[0].log_probs, MISSING),
        np.append(orders[0].backoffs, 0.0),
    )
    return BackoffModel((*words, UNKNOWN), (with_unknown, *orders[1:]))


def _unpack(
    packed: UInt8[np.ndarray, "bytes"], widths: list[int], count: int
) -> list[Int64[np.ndarray, "count"]]:
    """Fields of `widths` bits each out of `count` records, lowest bits first."""
    begins = np.arange(count, dtype=np.int64) * sum(widths)
    fields = []
    for width in widths:
        byte, shift = begins >> 3, (begins & 7).astype(np.uint64)
        # A field of 25 bits may begin at the last bit of a byte and so span five.
        value = np.zeros(count, np.uint64)
        for n in range((width + 14) // 8):
            value |= packed[byte + n].astype(np.uint64) << np.uint64(8 * n)
        fields.append(((value >> shift) & np.uint64((1 << width) - 1)).astype(np.int64))
        begins += width
    return fields


def _nats(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64) * _NATS
