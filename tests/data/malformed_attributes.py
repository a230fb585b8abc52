"""Attributes that are missing, of another type, or contradict the rest of their trial."""

from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from modessm_jax.data.validation import MAX_BINS
from tests.data.mutations import (
    EXCLUDED,
    FEATURES,
    HARMLESS,
    IDS,
    Mutation,
    Spoil,
    collector,
    number,
    replace,
    values,
)

ATTRIBUTES: list[Mutation] = []
mutation = collector(ATTRIBUTES)

# From the old value to the new one.
Change = Callable[[Any], Any]

NO_NUMBER: dict[str, Change] = {
    "NaN": lambda old: np.nan,
    "infinite": lambda old: np.inf,
    "a half more": lambda old: old + 0.5,
    "text": lambda old: str(old),
    "bytes": lambda old: np.bytes_(b"7"),
    "two numbers": lambda old: [old, old],
    "a thousand numbers": lambda old: np.full(1000, old),
    "no numbers": lambda old: np.zeros(0, np.int64),
    "empty": lambda old: h5py.Empty("i8"),
    "true": lambda old: True,
    "complex": lambda old: complex(old),
    "compound": lambda old: np.array((old, old), "i4,i4"),
    "opaque": lambda old: np.void(b"\x07\x00"),
    "a null reference": lambda old: h5py.Reference(),
    "negative": lambda old: -1 - old,
    "2**40": lambda old: 2**40,
    "2**64 - 1": lambda old: np.uint64(2**64 - 1),
    "1e300": lambda old: 1e300,
}
SAME_NUMBER: dict[str, Change] = {
    "a float": lambda old: float(old),
    "of 16 bits": lambda old: np.uint16(old),
    "big-endian": lambda old: np.array(old, ">i8"),
    "an array of one": lambda old: [old],
}
NO_TEXT: dict[str, Change] = {
    "a number": lambda old: 5,
    "two texts": lambda old: [old, old],
    "empty": lambda old: h5py.Empty("S4"),
    "opaque": lambda old: np.void(b"\x00\x01"),
    "a null reference": lambda old: h5py.Reference(),
    "Latin-1 bytes": lambda old: np.bytes_(b"caf\xe9"),
}


def changed(field: str, change: Change, dtype: Any = None) -> Spoil:
    def spoil(group: h5py.Group, random: np.random.Generator) -> None:
        group.attrs.create(field, change(group.attrs[field]), dtype=dtype)

    return spoil


def missing(field: str) -> Spoil:
    def spoil(group: h5py.Group, random: np.random.Generator) -> None:
        del group.attrs[field]

    return spoil


def time(field: str) -> Spoil:
    """A type that HDF5 has and NumPy has not."""

    def spoil(group: h5py.Group, random: np.random.Generator) -> None:
        del group.attrs[field]
        scalar = h5py.h5s.create(h5py.h5s.SCALAR)
        h5py.h5a.create(group.id, field.encode(), h5py.h5t.UNIX_D32LE, scalar)

    return spoil


for _field in ("n_time_steps", "seq_len", "block_num", "trial_num"):
    mutation(_field, name=f"{_field} missing")(missing(_field))
    mutation(_field, name=f"{_field} a time")(time(_field))
    for _name, _change in NO_NUMBER.items():
        mutation(_field, name=f"{_field} {_name}")(changed(_field, _change))
    for _name, _change in SAME_NUMBER.items():
        mutation(_field, HARMLESS, name=f"{_field} {_name}")(changed(_field, _change))

for _field in ("session", "sentence_label"):
    mutation(_field, name=f"{_field} a time")(time(_field))
    _latin = changed(_field, lambda old: b"caf\xe9", h5py.string_dtype())
    mutation(_field, name=f"{_field} Latin-1")(_latin)
    for _name, _change in NO_TEXT.items():
        mutation(_field, name=f"{_field} {_name}")(changed(_field, _change))
    _bytes = changed(_field, lambda old: np.bytes_(old.encode()))
    mutation(_field, HARMLESS, name=f"{_field} bytes")(_bytes)
    # The folder has the name of the session, and the sentence is not needed.
    mutation(_field, HARMLESS, name=f"{_field} missing")(missing(_field))


@mutation("session")
def another_session(group, random):
    group.attrs["session"] = "elsewhere"


@mutation("", HARMLESS)
def an_unknown_attribute(group, random):
    group.attrs["notes"] = h5py.Empty("i8")


@mutation("n_time_steps")
def more_frames_than_stored(group, random):
    group.attrs["n_time_steps"] = len(values(group, FEATURES)) + int(random.integers(1, 99))


@mutation("n_time_steps", EXCLUDED)
def under_50_ms(group, random):
    group.attrs["n_time_steps"] = int(random.integers(0, 3))


@mutation("n_time_steps", EXCLUDED)
def over_60_s(group, random):
    real = values(group, FEATURES)[: number(group, "n_time_steps")]
    replace(group, FEATURES, data=np.resize(real, (MAX_BINS + 1, real.shape[1])))
    group.attrs["n_time_steps"] = MAX_BINS + 1


@mutation("seq_len")
def no_labels(group, random):
    group.attrs["seq_len"] = 0


@mutation("seq_len")
def fewer_labels_than_there_are(group, random):
    group.attrs["seq_len"] = int(random.integers(1, number(group, "seq_len")))


@mutation("seq_len")
def more_labels_than_stored(group, random):
    group.attrs["seq_len"] = len(values(group, IDS)) + int(random.integers(1, 99))


@mutation("seq_len")
def more_labels_than_frames(group, random):
    count = number(group, "n_time_steps") + 1
    replace(group, IDS, data=np.full(count, 7))
    group.attrs["seq_len"] = count


@mutation(IDS)
def a_label_of_the_padding(group, random):
    group.attrs["seq_len"] = number(group, "seq_len") + 1


@mutation("trial_num")
def the_number_of_another_trial(group, random):
    first = group.parent["trial_0000"]
    for field in ("block_num", "trial_num"):
        group.attrs[field] = first.attrs[field]
