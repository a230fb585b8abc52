"""Random keys: no two purposes may draw the same numbers."""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

import modessm_jax
from modessm_jax.runtime.keys import Purpose, damage_root, keys_of_step, root

PACKAGE = Path(modessm_jax.__file__).parent


def numbers(key) -> tuple[int, ...]:
    return tuple(jax.random.key_data(key).tolist())


def drawn(seed: int) -> list[tuple[int, ...]]:
    """The keys of a run: the roots, what is folded into them, and what these are split into."""
    keys = [root(seed, purpose) for purpose in Purpose]
    keys.append(nnx.Rngs(root(seed, Purpose.PARAMETERS)).params())
    keys += [jax.random.fold_in(damage_root(), trial) for trial in range(4)]
    keys += [jax.random.fold_in(root(seed, Purpose.NOISE), trial) for trial in range(4)]
    for step in range(4):
        of_step = keys_of_step(seed, jnp.int32(step)).values()
        keys += of_step
        keys += [part for key in of_step for part in jax.random.split(key, 9)]
    return [numbers(key) for key in keys]


def test_all_roots_and_what_is_drawn_from_them_differ():
    # The damage to trials that are scored is the same in all runs, and so counts once.
    common = {numbers(root(0, Purpose.DAMAGE))}
    common |= {numbers(jax.random.fold_in(damage_root(), trial)) for trial in range(4)}
    found = [drawn(seed) for seed in (0, 1, 2**31 - 1)]
    for keys in found:
        assert len(set(keys)) == len(keys)
    for one, other in itertools.combinations(found, 2):
        assert not (set(one) & set(other)) - common


def test_a_root_is_the_key_of_no_step_and_no_trial():
    roots = {numbers(root(0, purpose)) for purpose in Purpose}
    untagged = {numbers(jax.random.fold_in(jax.random.key(0), number)) for number in range(50)}
    assert not roots & untagged and min(Purpose) > jnp.iinfo(jnp.int32).max


def test_a_run_of_an_earlier_format_keeps_its_keys():
    key = jax.random.fold_in(jax.random.key(5), 7)
    augment, dropout = jax.random.split(key)
    found = keys_of_step(5, jnp.int32(7), tagged=False)
    assert numbers(found[Purpose.AUGMENTATION]) == numbers(augment)
    assert numbers(found[Purpose.DROPOUT]) == numbers(dropout)
    # The key of the static gain, for which there are roots now.
    gain = jax.random.split(augment, 9)[1]
    assert numbers(found[Purpose.CORRUPTION]) == numbers(gain)
    assert numbers(damage_root(tagged=False)) == numbers(jax.random.key(0))


def test_keys_are_made_in_one_place():
    made = ("random.key(", "random.PRNGKey(", "Rngs(")
    places = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(text in path.read_text(encoding="utf-8") for text in made)
    }
    # build.py gives a root to the streams of Flax.
    assert places == {"runtime/keys.py", "models/build.py"}
