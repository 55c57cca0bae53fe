"""The compiled step of nnx models: one for all runs that differ in rates, seeds and data alone."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from ...jax import sites
from ..recipes.objective import Objective
from .nnx_losses import call, loss_of, optimizer, outputs_of, parted, trained_figure

KEPT = 16  # programs of one process
Made = tuple[str, float, float]
"""An optimizer: its name, learning rate and weight decay."""


class Program:
    """A step of training and a forward, of any model with these sites.

    Args:
        objective: what is trained for.
        made: the optimizer.
        l2: times the sum of squared weights, biases left out, is added to the loss.
        layers: the paths of the dropouts whose rates a step gets, in their order.
    """

    def __init__(
        self, objective: Objective, made: tuple[str, float, float], l2: float, layers: tuple[str, ...]
    ) -> None:
        self.kind, self.l2, self.layers = objective.kind, l2, layers
        self.loss, self.own = loss_of(objective)
        self.figure = trained_figure(objective)
        self.optimizer = optimizer(*made)
        self.traced = 0  # how often Python went through the step: once for each program
        self.step = jax.jit(self._step, static_argnums=0, donate_argnums=(1, 2, 3))
        self.forward = jax.jit(self._forward, static_argnums=0)

    def _step(self, graph: Any, weights: Any, rest: Any, moments: Any, rates: Any, speed: Any, x: Any, y: Any) -> Any:
        self.traced += 1

        def loss_of(weights: Any) -> Any:
            model = nnx.merge(graph, weights, rest, copy=True)
            found = sites(model)
            for number, name in enumerate(self.layers):
                found[name].rate = rates[number]
            outputs = outputs_of(call(model, x, True), self.kind)
            loss = self.loss(outputs, y)
            return loss + self._penalty(weights), (loss, outputs, parted(model)[2])

        gradients, (loss, outputs, rest) = jax.grad(loss_of, has_aux=True)(weights)
        updates, moments = self.optimizer.update(gradients, moments, weights)
        updates = jax.tree.map(lambda update: update * speed.astype(update.dtype), updates)
        figure = jnp.nan if self.figure is None else self.figure(outputs, y).sum()
        return optax.apply_updates(weights, updates), rest, moments, jnp.stack([loss * len(y), figure])

    def _penalty(self, weights: Any) -> Any:
        squares = [(leaf**2).sum() for leaf in jax.tree.leaves(weights) if leaf.ndim > 1] if self.l2 else []
        return self.l2 * sum(squares)

    def _forward(self, graph: Any, weights: Any, rest: Any, x: Any) -> Any:
        return outputs_of(call(nnx.merge(graph, weights, rest, copy=True), x, False), self.kind)


@lru_cache(maxsize=KEPT)
def program(objective: Objective, made: Made, l2: float, layers: tuple[str, ...]) -> Program:
    """The program of these; what JAX compiled for one run, the next one finds."""
    return Program(objective, made, l2, layers)
