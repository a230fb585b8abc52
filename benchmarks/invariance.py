"""How much results differ that should be equal: with padding and without, on one device and four.

    python -m benchmarks.invariance

Uses the small recipe with every objective and augmentation on, unequal lengths, and one trial whose
labels do not fit its frames.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.recipe import first_step, random_batch
from configs.multiscale import get_config
from modessm_jax.losses.ctc import ctc_cost
from modessm_jax.models.build import Functional
from modessm_jax.runs.load import build_model
from modessm_jax.runtime.mesh import data_mesh
from modessm_jax.sequence import Sequence
from modessm_jax.training.step import shard_batch

CHANNELS, SESSIONS, LABELS = 24, 3, 12
# Each length is compiled once. The last has too few frames for its labels.
LENGTHS = [96, 96, 96, 40, 40, 40, 40, 14]


def relative(a: Any, b: Any) -> float:
    """Largest difference of two trees, relative to the largest entry of each array of `b`."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(jnp.max(jnp.abs(x - y)) / jnp.max(jnp.abs(y))) for x, y in pairs)


def padding(model: Functional) -> None:
    """Alone, in a padded batch, and with NaN in the padding."""
    given = random_batch(LENGTHS, CHANNELS, SESSIONS, LABELS)

    @jax.jit
    def pull(values: jax.Array, mask: jax.Array, session: jax.Array, ids: jax.Array) -> Any:
        def cost(params: Any, values: jax.Array) -> Any:
            logits = model.apply(params, Sequence(values, mask), session).logits["phoneme"]
            labels = Sequence(ids, jnp.ones_like(ids, bool))
            return ctc_cost(logits, labels).nats.sum(), logits.masked().values

        return jax.value_and_grad(cost, argnums=(0, 1), has_aux=True)(model.params, values)

    mask, ids = given.features.mask, given.labels.values
    (_, logits), (grads, inputs) = pull(given.features.values, mask, given.session, ids)
    with_nan = np.where(mask[..., None], given.features.values, np.nan)
    (_, other), (other_grads, other_inputs) = pull(with_nan, mask, given.session, ids)
    print(f"NaN padding: logits {relative(other, logits):.1e}, gradients "
          f"{relative((other_grads, other_inputs), (grads, inputs)):.1e}")  # fmt: skip
    worst, worst_inputs, total = 0.0, 0.0, None
    for row, length in enumerate(LENGTHS):
        part = slice(row, row + 1)
        (_, alone), (alone_grads, alone_inputs) = pull(
            given.features.values[part, :length], mask[part, :length], given.session[part],
            ids[part],
        )  # fmt: skip
        frames = -(-length // 2)
        worst = max(worst, relative(alone[0, :frames], logits[row, :frames]))
        if np.any(inputs[row]):
            worst_inputs = max(worst_inputs, relative(alone_inputs[0], inputs[row, :length]))
        total = alone_grads if total is None else jax.tree.map(jnp.add, total, alone_grads)
    print(f"alone against padded: logits {worst:.1e}, gradients of features {worst_inputs:.1e}, "
          f"of parameters {relative(total, grads):.1e}")  # fmt: skip


def devices(model: Functional, config: dict[str, Any]) -> None:
    """The same step on one device and on four."""
    found = []
    for count in (1, 4):
        mesh = data_mesh(jax.devices()[:count])
        step, state = first_step(config, model, mesh, ema_decay=0.0)
        batch = random_batch(LENGTHS, CHANNELS, SESSIONS, LABELS)
        state, report = step(state, shard_batch(batch, mesh))
        # After one step Adam's first moment is a fixed multiple of the clipped gradient.
        moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
        scalars = {name: report.scalars[name] for name in ("loss", "gradient_norm", "infeasible")}
        found.append(jax.device_get((scalars, moments[: len(moments) // 2])))
    one, four = found
    print(f"one and four devices: loss {relative(four[0]['loss'], one[0]['loss']):.1e}, gradient "
          f"norm {relative(four[0]['gradient_norm'], one[0]['gradient_norm']):.1e}, gradients "
          f"{relative(four[1], one[1]):.1e}; infeasible trials {one[0]['infeasible']:.0f} and "
          f"{four[0]['infeasible']:.0f}")  # fmt: skip


def main() -> None:
    jax.config.update("jax_num_cpu_devices", 4)
    config = get_config("small").to_dict()
    config["augment"] |= {"random_walk": 0.01, "static_gain": 0.1, "speckle": 0.1}
    config["objective"]["weights"] = {"phoneme": 1.0, "interctc": 0.3, "label_smoothing": 0.1}
    model = build_model(config, CHANNELS, SESSIONS)
    padding(model)
    devices(model, config)


if __name__ == "__main__":
    main()
