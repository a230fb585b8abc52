"""Datasets of another type, shape, size or storage, and values that cannot be."""

from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from tests.data.mutations import (
    EXCLUDED,
    FEATURES,
    HARMLESS,
    IDS,
    REPAIRED,
    Mutation,
    Spoil,
    collector,
    number,
    replace,
    values,
)

DATASETS: list[Mutation] = []
mutation = collector(DATASETS)


def created(
    field: str, rows: int | None = None, dtype: Any = None, chunks: bool | None = None
) -> Spoil:
    """Never written: the file stays small, and what is read are fill values, here a valid label."""

    def spoil(group: h5py.Group, random: np.random.Generator) -> None:
        old = values(group, field)
        shape = (old.shape[0] if rows is None else rows, *old.shape[1:])
        if dtype is None:
            replace(group, field, shape=shape, dtype=old.dtype, fillvalue=7, chunks=chunks)
        else:
            replace(group, field, shape=shape, dtype=dtype)

    return spoil


def stored(field: str, change: Callable[[np.ndarray], Any] = np.copy, **options: Any) -> Spoil:
    """Written whole, its values changed."""

    def spoil(group: h5py.Group, random: np.random.Generator) -> None:
        replace(group, field, data=change(values(group, field)), **options)

    return spoil


def instead(field: str, put: Callable[[h5py.Group, str], Any]) -> Spoil:
    """Something that is no dataset of this file."""

    def spoil(group: h5py.Group, random: np.random.Generator) -> None:
        del group[field]
        put(group, field)

    return spoil


def in_chunks_of_two_gib(field: str) -> Spoil:
    def spoil(group: h5py.Group, random: np.random.Generator) -> None:
        old = values(group, field)
        rest = old.shape[1:]
        rows = 2**31 // (old.itemsize * int(np.prod(rest)))
        options = {"chunks": (rows, *rest), "maxshape": (None, *rest)}
        replace(group, field, shape=old.shape, dtype=old.dtype, **options)

    return spoil


def time(group: h5py.Group, field: str) -> None:
    """A type that HDF5 has and NumPy has not."""
    space = h5py.h5s.create_simple((40,))
    h5py.h5d.create(group.id, field.encode(), h5py.h5t.UNIX_D32LE, space)


def virtual(group: h5py.Group, field: str) -> None:
    shape, dtype = ((40, 20), "f4") if field == FEATURES else ((40,), "i4")
    layout = h5py.VirtualLayout(shape, dtype)
    layout[:] = h5py.VirtualSource("gone.hdf5", "values", shape)
    group.create_virtual_dataset(field, layout, fillvalue=7)


def external(group: h5py.Group, field: str) -> None:
    shape, dtype = ((40, 20), "f4") if field == FEATURES else ((40,), "i4")
    group.create_dataset(field, shape, dtype, external=[("gone.bin", 0, h5py.h5f.UNLIMITED)])


def linked(link: Callable[[str], Any]) -> Callable[[h5py.Group, str], None]:
    """`link` is given the path it takes the place of."""

    def put(group: h5py.Group, field: str) -> None:
        group[field] = link(f"{group.name}/{field}")

    return put


KINDS: dict[str, Any] = {
    "boolean": bool,
    "complex": "c8",
    "bytes": "S4",
    "text": h5py.string_dtype(),
    "compound": "f4,f4",
    "opaque": "V4",
    "references": h5py.ref_dtype,
    "ragged": h5py.vlen_dtype(np.float32),
    "rows of three": np.dtype(("f4", (3,))),
}
DECLARED: dict[str, dict[str, Any]] = {
    "of 10**12 rows": {"rows": 10**12, "chunks": True},
    "of 10**12 rows in one piece": {"rows": 10**12},
    "of 2**62 rows": {"rows": 2**62, "chunks": True},
    "never written": {"chunks": True},
    "never written, in one piece": {},
}
SHAPES: dict[str, Callable[[np.ndarray], Any]] = {
    "a scalar": lambda old: old.ravel()[0],
    "with an axis behind": lambda old: old[..., None],
    "with two axes before": lambda old: old[None, None],
}
INSTEAD: dict[str, Callable[[h5py.Group, str], Any]] = {
    "missing": lambda group, field: None,
    "a group": lambda group, field: group.create_group(field),
    "a type": lambda group, field: group.__setitem__(field, np.dtype("f4")),
    "empty": lambda group, field: group.create_dataset(field, data=h5py.Empty("f4")),
    "of times": time,
    "in another file, virtually": virtual,
    "in a raw file that is gone": external,
    "a link to nowhere": linked(lambda path: h5py.SoftLink("/gone")),
    "a link to itself": linked(h5py.SoftLink),
    "a link to a file that is gone": linked(lambda path: h5py.ExternalLink("gone.hdf5", path)),
}
SAME_VALUES: dict[str, dict[str, Any]] = {
    "in chunks": {"chunks": True},
    "compressed": {"compression": "gzip", "shuffle": True},
    "with checksums": {"fletcher32": True},
}

for _field, _other in ((FEATURES, "i4"), (IDS, "f4")):
    for _name, _dtype in (KINDS | {f"of type {_other}": _other}).items():
        mutation(_field, name=f"{_field} {_name}")(created(_field, dtype=_dtype))
    for _name, _options in DECLARED.items():
        mutation(_field, name=f"{_field} {_name}")(created(_field, **_options))
    mutation(_field, name=f"{_field} in chunks of 2 GiB")(in_chunks_of_two_gib(_field))
    for _name, _change in SHAPES.items():
        mutation(_field, name=f"{_field} {_name}")(stored(_field, _change))
    for _name, _put in INSTEAD.items():
        mutation(_field, name=f"{_field} {_name}")(instead(_field, _put))
    for _name, _options in SAME_VALUES.items():
        mutation(_field, HARMLESS, name=f"{_field} {_name}")(stored(_field, **_options))
for _type in ("f8", ">f4", "longdouble"):
    mutation(FEATURES, HARMLESS, name=f"features of type {_type}")(stored(FEATURES, dtype=_type))
for _type in ("u1", "i8", ">i2", "u8"):
    mutation(IDS, HARMLESS, name=f"labels of type {_type}")(stored(IDS, dtype=_type))


@mutation(FEATURES)
def no_channels(group, random):
    replace(group, FEATURES, shape=(len(values(group, FEATURES)), 0), dtype="f4")


@mutation(FEATURES)
def other_channels(group, random):
    whole = values(group, FEATURES)
    replace(group, FEATURES, data=np.resize(whole, (len(whole), int(random.choice([1, 19, 21])))))


@mutation(FEATURES)
def transposed(group, random):
    replace(group, FEATURES, data=values(group, FEATURES).T)


@mutation(FEATURES)
def ten_to_the_eleven_channels(group, random):
    replace(group, FEATURES, shape=(len(values(group, FEATURES)), 10**11), dtype="f4", chunks=True)


@mutation("n_time_steps", reread=True)
def frames_lost(group, random):
    left = int(random.integers(0, number(group, "n_time_steps")))
    replace(group, FEATURES, data=values(group, FEATURES)[:left])


@mutation(FEATURES)
def as_many_frames_as_declared_and_none_written(group, random):
    group.attrs["n_time_steps"] = 10**9
    created(FEATURES, 10**12, chunks=True)(group, random)


@mutation(FEATURES)
def the_last_frames_never_written(group, random):
    whole, bins = values(group, FEATURES), number(group, "n_time_steps")
    replace(group, FEATURES, shape=whole.shape, dtype="f4", chunks=(1, whole.shape[1]))
    group[FEATURES][: bins - 1] = whole[: bins - 1]
    group[FEATURES][bins:] = whole[bins:]


@mutation(FEATURES, HARMLESS)
def padding_never_written(group, random):
    whole, bins = values(group, FEATURES), number(group, "n_time_steps")
    replace(group, FEATURES, shape=whole.shape, dtype="f4", chunks=(1, whole.shape[1]))
    group[FEATURES][:bins] = whole[:bins]


@mutation(FEATURES, HARMLESS)
def half_precision(group, random):
    whole = values(group, FEATURES)
    replace(group, FEATURES, data=np.clip(whole, -6e4, 6e4).astype(np.float16))


@mutation(FEATURES, HARMLESS)
def padding_not_finite(group, random):
    group[FEATURES][number(group, "n_time_steps") :] = np.nan


@mutation(FEATURES)
def damaged_under_a_checksum(group, random):
    written_raw(group, lambda whole: random.bytes(whole.nbytes + 4), fletcher32=True)


@mutation(FEATURES)
def compressed_data_are_noise(group, random):
    written_raw(group, lambda whole: random.bytes(whole.nbytes), compression="gzip")


@mutation(FEATURES)
def compressed_by_an_unknown_filter(group, random):
    whole = values(group, FEATURES)
    del group[FEATURES]
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk(whole.shape)
    creation.set_filter(32999, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple(whole.shape)
    new = h5py.h5d.create(group.id, FEATURES.encode(), h5py.h5t.IEEE_F32LE, space, creation)
    new.write_direct_chunk((0, 0), whole.tobytes())


def written_raw(group, make: Callable[[np.ndarray], bytes], **filters: Any) -> None:
    """Puts bytes where a filter expects its own format."""
    whole = values(group, FEATURES)
    replace(group, FEATURES, shape=whole.shape, dtype="f4", chunks=whole.shape, **filters)
    group[FEATURES].id.write_direct_chunk((0, 0), make(whole))


def spoil_channels(group, count: int, value: float, random):
    """In one real frame, or in all where a finite value is to make a channel dead."""
    whole, bins = values(group, FEATURES), number(group, "n_time_steps")
    channels = random.choice(whole.shape[1], count, replace=False)
    rows = slice(bins) if np.isfinite(value) else int(random.integers(bins))
    whole[rows, channels] = value
    group[FEATURES][:] = whole


for _value in (np.nan, np.inf, -np.inf):

    @mutation(FEATURES, REPAIRED, name=f"{_value} in two channels of 20")
    def _(group, random, value=_value):
        spoil_channels(group, int(random.integers(1, 3)), value, random)

    @mutation(FEATURES, EXCLUDED, name=f"{_value} in more channels")
    def _(group, random, value=_value):
        spoil_channels(group, int(random.integers(3, 21)), value, random)


@mutation(FEATURES, EXCLUDED)
def dead_channels(group, random):
    spoil_channels(group, int(random.integers(3, 21)), 0.0, random)


@mutation(FEATURES, REPAIRED)
def beyond_float32(group, random):
    whole = values(group, FEATURES).astype(np.float64)
    whole[0, 3] = 1e300
    replace(group, FEATURES, data=whole)


@mutation(FEATURES, REPAIRED)
def signalling_not_a_number(group, random):
    whole = values(group, FEATURES).astype(np.float64)
    whole.view(np.uint64)[0, 3] = 0x7FF0000000000001
    replace(group, FEATURES, data=whole)


@mutation(IDS)
def a_label_that_is_the_blank(group, random):
    label(group, random, 0)


@mutation(IDS)
def a_negative_label(group, random):
    label(group, random, -int(random.integers(1, 2**31)))


@mutation(IDS)
def a_label_over_40(group, random):
    label(group, random, int(random.choice([41, 255, 2**31 - 1])))


@mutation(IDS)
def a_label_of_64_bits(group, random):
    stored(IDS, dtype="i8")(group, random)
    # As 32 bits, it would be a label.
    label(group, random, 2**40 + 7)


@mutation("seq_len")
def no_room_for_the_labels(group, random):
    whole = values(group, IDS)
    replace(group, IDS, data=whole[: int(random.integers(number(group, "seq_len")))])


@mutation(IDS, HARMLESS)
def labels_without_padding(group, random):
    replace(group, IDS, data=values(group, IDS)[: number(group, "seq_len")])


@mutation("transcription", HARMLESS)
def a_transcription_that_is_not_read(group, random):
    group["transcription"] = random.normal(size=(2, 2))


def label(group: h5py.Group, random: np.random.Generator, value: int) -> None:
    whole = values(group, IDS)
    whole[int(random.integers(number(group, "seq_len")))] = value
    replace(group, IDS, data=whole)
