"""NumPy, PyTorch, JAX and Keras in one process: five inputs, one mask. Run by `test_four_frameworks.py`."""

import os

os.environ["KERAS_BACKEND"] = "torch"


def main() -> None:
    """Compare the four on each input, bit for bit, and with `keep`."""
    import jax.numpy as jnp
    import keras
    import numpy as np
    import torch

    import dropkit
    import dropkit.jax
    import dropkit.keras
    import dropkit.numpy
    import dropkit.torch

    inputs = [
        ((7,), 0.5, "float32", ()),
        ((33, 65), 0.1, "float32", ()),
        ((4, 3, 8, 8), 0.3, "float32", (2, 3)),
        ((2, 5, 31), 1 / 3, "float16", (1,)),
        ((20_000,), 0.999, "float32", ()),
    ]
    for number, (shape, p, dtype, share) in enumerate(inputs):
        x = np.random.Generator(np.random.Philox(number)).uniform(0.5, 2, shape).astype(dtype)
        key = dropkit.Key(seed=number, site="four", step=2**33 + number)
        rest = {"training": True, "key": key, "share": share}
        results = {
            "NumPy": dropkit.numpy.dropout(x, p, **rest),
            "PyTorch": dropkit.torch.dropout(torch.from_numpy(x), p, **rest).numpy(),
            "JAX": np.asarray(dropkit.jax.dropout(jnp.asarray(x), p, **rest)),
            "Keras": keras.ops.convert_to_numpy(dropkit.keras.dropout(keras.ops.convert_to_tensor(x), p, **rest)),
        }
        kept = np.broadcast_to(dropkit.keep(shape, p, key, share=share), shape)
        for name, y in results.items():
            assert y.dtype == x.dtype, (name, y.dtype)
            assert np.array_equal(y != 0, kept), (name, number)
            assert y.tobytes() == results["NumPy"].tobytes(), (name, number)
        assert 0 < kept.sum() < kept.size
    print(f"{len(inputs)} inputs, {len(results)} frameworks, one mask")


if __name__ == "__main__":
    main()
