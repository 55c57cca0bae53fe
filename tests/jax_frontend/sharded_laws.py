"""Laws and shares on eight virtual devices, printed as JSON: for each case whether y and its gradients are the whole's,
and whether y is cut as x. Run by `test_laws.py` in a process of its own."""

import json
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tests.jax_frontend.sharded import COLLECTIVE
from tests.jax_frontend.test_laws import CASES, called, oracle, others, sample

SHAPE = (16, 40)


def case(name: str, mesh: Mesh, how: dict[str, Any]) -> dict[str, Any]:
    x, o = sample(*SHAPE), others(how, *SHAPE)
    cut, whole = NamedSharding(mesh, PartitionSpec("a", "b")), NamedSharding(mesh, PartitionSpec())
    given = (jax.device_put(x, cut), *(() if o is None else (jax.device_put(o, whole),)))

    def function(x: Any, o: Any = None) -> Any:
        return called(x, o, 5, 0.3, how)

    def slopes(*given: Any) -> Any:
        return jax.grad(lambda *given: jnp.nan_to_num(function(*given), neginf=0).sum(), tuple(range(len(given))))(
            *given
        )

    compiled = jax.jit(function).lower(*given).compile()
    y = compiled(*given)
    near = {"rtol": 2e-5, "atol": 1e-5}
    wanted = slopes(*map(jnp.asarray, (x,) if o is None else (x, o)))
    return {
        "name": name,
        "same": bool(np.allclose(y, oracle(x, o, 5, 0.3, how), **near)),
        "cut": y.sharding.is_equivalent_to(cut, 2),
        "slope": all(np.allclose(a, b, **near) for a, b in zip(jax.jit(slopes)(*given), wanted, strict=True)),
        "collectives": len(COLLECTIVE.findall(compiled.as_text())),
    }


def main() -> None:
    found = []
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(kind, kind))
        with jax.set_mesh(mesh) if kind is AxisType.Explicit else nullcontext():
            found += [case(f"{name} {kind.name}", mesh, how) for name, how in CASES.items()]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
