"""Files, and the groups in them, that are damaged, renamed, doubled or something else."""

import h5py
import numpy as np

from tests.data.mutations import HARMLESS, Mutation, Target, collector

FILES: list[Mutation] = []
mutation = collector(FILES)


def overwrite(target: Target, place: int, content: bytes) -> None:
    with target.file.open("r+b") as file:
        file.seek(place)
        file.write(content)


def swap(group: h5py.Group, new) -> None:
    """Puts something else in the place of a trial."""
    root, name = group.parent, group.name
    assert isinstance(root, h5py.Group)
    del root[name]
    root[name] = new


@mutation("", place="", whole_file=True)
def truncated(target, random):
    content = target.file.read_bytes()
    target.file.write_bytes(content[: int(random.integers(len(content)))])


@mutation("", place="", whole_file=True)
def not_hdf5(target, random):
    target.file.write_bytes(random.bytes(3000))


@mutation("", place="", whole_file=True)
def a_link_to_a_file_that_is_gone(target, random):
    target.file.unlink()
    target.file.symlink_to("gone.hdf5")


@mutation("", place="", whole_file=True)
def a_folder(target, random):
    target.file.unlink()
    target.file.mkdir()


@mutation("", place="", whole_file=True)
def without_trials(target, random):
    with h5py.File(target.file, "w"):
        pass


@mutation("", place="", whole_file=True)
def the_list_of_trials_overwritten(target, random):
    overwrite(target, target.file.read_bytes().index(b"TREE"), bytes(24))


@mutation("", whole_file=True)
def the_head_of_a_trial_overwritten(target, random):
    with h5py.File(target.file) as handle:
        place = h5py.h5g.get_objinfo(handle.id, target.trial.encode()).objno[0]
    overwrite(target, place, bytes(16))


@mutation("input_features", whole_file=True)
def the_head_of_the_features_overwritten(target, random):
    with h5py.File(target.file) as handle:
        features = f"{target.trial}/input_features"
        place = h5py.h5g.get_objinfo(handle.id, features.encode()).objno[0]
    overwrite(target, place, bytes(16))


@mutation("", reread=True)
def a_dataset_for_a_trial(group, random):
    swap(group, np.zeros((3, 20), np.float32))


@mutation("", reread=True)
def a_type_for_a_trial(group, random):
    swap(group, np.dtype("f4"))


@mutation("", reread=True)
def a_trial_that_points_nowhere(group, random):
    swap(group, h5py.SoftLink("/gone"))


@mutation("", reread=True)
def a_trial_that_points_at_itself(group, random):
    swap(group, h5py.SoftLink(group.name))


@mutation("", reread=True)
def a_trial_in_a_file_that_is_gone(group, random):
    swap(group, h5py.ExternalLink("gone.hdf5", group.name))


@mutation("n_time_steps", reread=True)
def an_empty_trial(group, random):
    root, name = group.parent, group.name
    del root[name]
    root.create_group(name)


@mutation("trial_num", place="{trial}9")
def a_trial_twice(group, random):
    group.parent[f"{group.name}9"] = group


@mutation("trial_num", place="{trial}9")
def a_link_to_a_trial(group, random):
    group.parent[f"{group.name}9"] = h5py.SoftLink(group.name)


@mutation("trial_num", place="{trial}9")
def a_copy_of_a_trial(group, random):
    group.parent.copy(group, f"{group.name}9")


NAMES = {
    "notes": b"notes",
    "trial_": b"trial_",
    "trial_-1": b"trial_-1",
    "Trial_0001": b"Trial_0001",
    "trial_0001 (copy)": b"trial_0001 (copy)",
    "trial_1e3": b"trial_1e3",
    "trial_0001\n": b"trial_0001\n",
    "trial_\u0663": "trial_\u0663".encode(),
    "trial_\U0001f9e0": "trial_\U0001f9e0".encode(),
    "trial_" + "9" * 5000: b"trial_" + b"9" * 5000,
    "trial_\\xff": b"trial_\xff",
}
for _shown, _name in NAMES.items():

    @mutation("", place=_shown, name=f"a group {_name[:20]!r}")
    def _(group, random, name=_name):
        h5py.h5g.create(group.parent.id, name)

    @mutation("", place=_shown, name=f"a trial renamed {_name[:20]!r}", reread=True)
    def _(group, random, name=_name):
        group.parent.id.move(group.name.encode(), name)


# Its place in the order is the same; but the list that was read has the old name.
@mutation("", HARMLESS, name="a trial's number without zeros", reread=True)
def _(group, random):
    group.parent.move(group.name, group.name.replace("_000", "_"))


@mutation("", HARMLESS)
def more_than_the_trial_in_its_group(group, random):
    group.create_group("notes").attrs["by"] = 5
    group["raw"] = np.zeros(3)
