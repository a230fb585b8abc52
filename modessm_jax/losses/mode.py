"""Losses of a latent mode: the likelihood summed over modes, and a guard against mode collapse."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from modessm_jax.losses.cost import Cost
from modessm_jax.losses.logspace import IMPOSSIBLE, ZERO


def marginal_cost(
    costs: Cost,
    log_modes: Float[Array, "batch modes"],
    block: Int[Array, "batch"] | None = None,
    trial: Int[Array, "batch"] | None = None,
) -> Cost:
    """Minus the log-likelihood of the labels, summed over a mode that is not labelled.

    Of a trial by itself: `-ln sum_z p(z|x) p(y|x, z)`. Its gradient weighs that of each mode's cost
    by the posterior p(z|x, y), which is expectation maximisation with a gradient step for M.

    Trials of one block share one mode: `-ln sum_z p(z|block) prod_i p(y_i|x_i, z)`, where
    p(z|block) is the normalised product of the p(z|x_i): Bayes' rule, if modes are equally common.
    The cost of a valid trial is the expected cost of its own labels under the posterior q(z) of its
    block, plus an equal share of `KL(q || p(z|block))`. These add up to the block's cost, with its
    gradient. A trial's nats are those of its own labels, so that dividing them by its frames means
    the same with modes as without.

    Args:
      costs: `-ln p(y|x, z)` for each trial and mode, `[batch, modes]`; inf where a mode makes the
        labels impossible. A trial is valid when it is so in every mode; others do not count for
        the mode of their block.
      log_modes: `ln p(z|x)`.
      block: trials of the batch with equal ids share one mode; by default none do.
      trial: rows of a block with equal ids are one trial, drawn more than once: together they count
        once for the mode of the block, with their mean. By default all are different.

    Returns:
      One cost per trial, in nats. It is inf, without a gradient, where no mode explains all of a
      block.
    """
    valid = costs.valid.all(axis=1)
    ids = jnp.arange(valid.shape[0]) if block is None else block
    together = (ids[:, None] == ids[None, :]) & valid[:, None] & valid[None, :]
    copies = None if trial is None else _copies(together, trial)

    def of_block(logs: Array) -> Array:
        logs = jnp.maximum(logs, ZERO)
        logs = logs if copies is None else logs / copies[:, None]
        # Not a product with 0 and 1: 0 times the NaN of an invalid trial would be NaN.
        return jnp.where(together[:, :, None], logs[None, :, :], 0.0).sum(axis=1)

    prior = jax.nn.log_softmax(of_block(log_modes), axis=1)
    joint = jax.lax.stop_gradient(prior + of_block(-costs.nats))
    posterior = jax.nn.log_softmax(joint, axis=1)

    def expected(values: Array) -> Array:
        # A mode of probability zero does not count, even at infinite cost. NaN is passed on.
        weight = jnp.exp(posterior)
        return jnp.where(weight == 0, 0.0, weight * values).sum(axis=1)

    size = jnp.maximum(together.sum(axis=1), 1)
    nats = expected(costs.nats) + expected(posterior - prior) / size
    nats = jnp.where(jax.nn.logsumexp(joint, axis=1) < IMPOSSIBLE, jnp.inf, nats)
    return Cost(nats=jnp.where(valid, nats, 0.0), valid=valid)


def information_cost(
    log_modes: Float[Array, "batch modes"],
    real: Bool[Array, "batch"],
    block: Int[Array, "batch"] | None = None,
    trial: Int[Array, "batch"] | None = None,
) -> Cost:
    """Guard against mode collapse: `ln K - I(z; x)` on average over the batch, with K modes.

    Bridle et al. 1992, "Unsupervised classifiers, mutual information and phantom targets" (and
    Krause et al. 2010). It is 0 when every trial's mode is certain and the modes are equally
    common, and ln K when all trials have the same mode or every trial's is uncertain. The cost of a
    trial is its own entropy `H(p(z|x))` plus the imbalance of the batch, `ln K - H(mean p(z|x))`;
    neither is ever negative.

    Where trials of a block share one mode, p(z|x) is the normalised geometric mean over the block.
    What differs from trial to trial, as words do, then has no influence. What differs between days
    still does, unless a batch is of one session.

    Args:
      log_modes: `ln p(z|x)`.
      real: which trials count; the mean is over these. With micro-batches it is over each by
        itself, so the objective is not that of the whole batch: keep them large enough for modes
        and blocks to meet in them.
      block: trials of the batch with equal ids share one mode; by default none do.
      trial: as for `marginal_cost`.

    Returns:
      One cost per trial, in nats; a trial that does not count is not valid.
    """
    logs = jnp.where(real[:, None], jnp.maximum(log_modes, ZERO), ZERO)
    if block is not None:
        same = (block[:, None] == block[None, :]) & real[None, :]
        together = same.astype(logs.dtype)
        if trial is not None:
            together /= _copies(same, trial)[None, :]
        size = jnp.maximum(together.sum(axis=1, keepdims=True), 1)
        logs = jnp.where(real[:, None], logs, 0.0)
        total = jnp.dot(together, logs, precision=jax.lax.Precision.HIGHEST)
        shared = jax.nn.log_softmax(total / size, axis=1)
        logs = jnp.where(real[:, None], shared, ZERO)
    mean = jax.nn.logsumexp(logs, axis=0) - jnp.log(jnp.maximum(real.sum(), 1))
    imbalance = jnp.log(float(logs.shape[1])) - _entropy(mean)
    nats = _entropy(logs) + imbalance
    return Cost(nats=jnp.where(real, nats, 0.0), valid=real)


def _copies(together: Bool[Array, "batch batch"], trial: Int[Array, "batch"]) -> Array:
    """How often each row's trial is among the rows of its block, at least 1."""
    same = together & (trial[:, None] == trial[None, :])
    return jnp.maximum(same.sum(axis=1), 1).astype(jnp.float32)


def _entropy(logs: Float[Array, "... modes"]) -> Float[Array, "..."]:
    return -jnp.sum(jnp.exp(logs) * logs, axis=-1)
