"""A wheel as a user gets it, with NumPy alone: golden masks, the NumPy frontend on its kernels, no framework.

Run by cibuildwheel, and by `make wheel`, in an environment that holds nothing but the wheel: `python tests/wheel.py`.
"""

import json
import sys
from pathlib import Path

import numpy as np

import dropkit
import dropkit.numpy

if __name__ == "__main__":
    vectors = json.loads((Path(__file__).parent / "golden" / "mask_vectors.json").read_text())["keep"]
    for vector in vectors:
        key = dropkit.Key(vector["seed"], vector["site"], vector["step"])
        if "index" in vector:
            y = dropkit.numpy.dropout(
                np.ones(len(vector["index"]), np.float32), vector["p"], training=True, key=key, rows=vector["index"]
            )
            assert (y != 0).tolist() == vector["bits"], vector
        else:
            y = dropkit.numpy.dropout(np.ones(vector["shape"], np.float32), vector["p"], training=True, key=key)
            assert np.packbits((y != 0).reshape(-1), bitorder="little").tobytes().hex() == vector["bits"], vector
    package = Path(dropkit.__file__).parent
    assert (package / "py.typed").exists(), "the wheel is typed, and does not say so"
    pages = (
        "report/page.html.j2",
        "report/plots.js",
        "probe/findings/doctor.zh.md",
        "languages/zh.json",
        *(f"probe/page/network.{end}" for end in ("html.j2", "js", "css")),
    )
    missing = [name for name in ("probe/findings/doctor.md", *pages) if not (package / name).exists()]
    assert not missing, f"the wheel lacks {missing}"
    assert not {"torch", "jax", "keras"} & set(sys.modules)
    assert dropkit.info()["cpu"]["path"], f"the wheel has no kernels: {dropkit.info()['cpu']['why']}"
    print(dropkit.choice.info_text())
