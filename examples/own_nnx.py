"""A flax.nnx model for arrays, to be tried with dropout; `seed` gives each run first weights of its own.

cd examples
dropkit compare own_nnx:Model --data arrays.npz --strategies none,as-is,fixed:0.1,gaussian:0.2
dropkit compare own_nnx:Model --data arrays.npz --insert hidden=0.2
"""

from typing import Any

from flax import nnx


class Model(nnx.Module):
    def __init__(self, seed: int) -> None:
        rngs = nnx.Rngs(seed)
        self.hidden, self.output = nnx.Linear(8, 32, rngs=rngs), nnx.Linear(32, 3, rngs=rngs)
        self.drop = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.output(self.drop(nnx.relu(self.hidden(x))))
