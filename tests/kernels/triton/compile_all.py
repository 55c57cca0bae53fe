"""Compile the Triton kernels for compute capability 9.0, without a GPU, and print as JSON what their PTX holds.

Run by test_triton.py in a process of its own, since the interpreter and the compiler cannot share one.
"""

import json
import re
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

from dropkit.counter import fold
from dropkit.kernels.triton import affine, attention, bias_activation, dropout, norm, residual, walk
from dropkit.kernels.triton.bits import RUN, SCATTERED, SHARED

FLAT = {"extents": (), "strides": ()}
OUTER = {"extents": ("i32", "i32"), "strides": ("i64", "i32")}
ONE_ROW = {"ROWS": 1, "CELLS": 128, "CELL": 32, "INNER": RUN, "ALIGNED": True}
ROWS = {**ONE_ROW, "ROWS": 4, "CELLS": 32}
MEMORY = {"gather": "*i64", "key": "*i64", "step": "*i64", "rate": "*fp32"}


TARGET = GPUTarget("cuda", 90, 32)


@triton.jit(do_not_specialize=["key"])
def key_in_a_tuple(key):
    """What the kernels do not do; see `walk.UNSPECIALIZED`."""


def binder(kernel: Any) -> Any:
    return create_function_from_signature(kernel.signature, kernel.params, make_backend(TARGET))


def variants_of_a_tuple() -> int:
    """How many kernels the keys of a hundred steps would compile, were they a tuple."""
    bind = binder(key_in_a_tuple)
    return len({str(bind(fold(1, 2, step))[1]) for step in range(100)})


def variants() -> int:
    """How many kernels launches with other keys, rates and bases would compile: Triton's own keys, counted."""
    x = torch.ones(64, 64)
    bind = binder(dropout.dropout_kernel)
    seen = set()
    for key in ((1, 16), (0, 2**32 - 1), (2**31, 5)):
        for t in (0, 1, 16, 65536):
            for base in (0, 32, 2**40, 2**62):
                given = walk.walk(x, None, base, None).arguments | walk.key_arguments(key)
                seen.add(str(bind(x, x, **given, **walk.rate_arguments(t, x.device))[1]))
    return len(seen)


def compiled(
    kernel: Any, types: dict[str, Any], constants: dict[str, Any], options: dict[str, Any] | None = None
) -> dict[str, int]:
    """Compile with the given pointer types and constants; whatever else is a pointer in memory is absent."""
    signature, values, attributes = {}, {}, {}
    for place, parameter in enumerate(kernel.params):
        name = parameter.name
        if name in types:
            signature[name] = types[name]
            if isinstance(types[name], tuple):
                attributes |= {(place, i): [["tt.divisibility", 16]] for i in range(len(types[name]))}
        elif parameter.annotation_type:
            signature[name] = parameter.annotation_type
        else:
            signature[name] = "constexpr"
            values[(place,)] = constants.get(name)
        if name in ("columns", "features", "others") or signature[name][:1] == "*":
            attributes[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, values, attributes)
    done = triton.compile(source, target=TARGET, options=options or {"num_warps": 4, **walk.EXACT})
    ptx = done.asm["ptx"]
    return {
        "shared": done.metadata.shared,
        "tensor_cores": len(re.findall(r"wgmma\.mma_async|mma\.sync", ptx)),
        "loads_ahead": len(re.findall(r"cp\.async\.c", ptx)),
        "wide_loads": len(re.findall(r"ld\.global\S*\.v4\.b32", ptx)),
        "narrow_stores": len(re.findall(r"st\.global\.b16", ptx)),
        "fused_multiply_adds": len(re.findall(r"fma\.rn\.f32", ptx)),
    }


def pointers(names: str, dtype: str = "bf16") -> dict[str, str]:
    return dict.fromkeys(names.split(), f"*{dtype}")


def attended(name: str, kernel: Any, features: int, given: dict[str, Any], dtype: str = "bf16") -> dict[str, int]:
    """A kernel of attention over bfloat16, causal, with dropout whose rows start anywhere."""
    tiles = attention.tiles_of(name, features, dtype == "bf16")._asdict()
    types: dict[str, Any] = pointers("q k v out grad dq dk dv", dtype) | pointers("most inverse lse_grad delta", "fp32")
    types |= {parameter.name: ("i32",) * 3 for parameter in kernel.params if parameter.name.endswith("_steps")}
    types |= {"mask_steps": ("i32",) * 4, "noise": ("i32",) * 4} | given
    constants = {"D": features, "E": features, "CAUSAL": True, "DROP": attention.AFTER, "SHARED": False}
    constants |= {"ALIGNED": False, "GROUPS": 4, "PRECISION": "ieee", "M": tiles.pop("M"), "N": tiles.pop("N")}
    types = {name: types[name] for name in types if name in {parameter.name for parameter in kernel.params}}
    return compiled(kernel, types, constants, tiles | attention.FUSED)


def main() -> None:
    plain = {"dropout": ONE_ROW, "unaligned": {**ONE_ROW, "ALIGNED": False}}
    report = {name: compiled(dropout.dropout_kernel, pointers("x y") | FLAT, c) for name, c in plain.items()}
    report["stored key"] = compiled(
        dropout.dropout_kernel, pointers("x y") | FLAT | {n: MEMORY[n] for n in ("key", "step", "rate")}, ONE_ROW
    )
    inner = {"gathered": {**ROWS, "ALIGNED": False}, "shared": {**ROWS, "INNER": SHARED}}
    inner["scattered"] = {**ROWS, "INNER": SCATTERED, "CELLS": 8}
    for name, constants in inner.items():
        types = pointers("x y", "fp16") | OUTER | {"gather": "*i64"}
        report[name] = compiled(dropout.dropout_kernel, types, constants)
    biased = OUTER | {"others": ("i32", "i32")}
    constants = {**ROWS, "CELLS": 8, "OTHER": 1}
    report["by rate"] = compiled(dropout.dropout_by_rate_kernel, pointers("x y p", "fp32") | biased, constants)
    for name, given in (("affine", {}), ("affine, stored", {"factors": "*fp64"})):
        report[name] = compiled(affine.affine_kernel, pointers("x y") | FLAT | given, ONE_ROW)
    report["residual"] = compiled(residual.residual_kernel, pointers("x r y") | FLAT, ONE_ROW)
    for name, act in (("relu", 0), ("gelu", 1), ("gelu_tanh", 2)):
        constants = {**ONE_ROW, "OTHER": 1, "ACT": act}
        kernel = bias_activation.bias_activation_kernel
        report[name] = compiled(kernel, pointers("x b y") | biased, constants)
        report[f"{name} backward"] = compiled(kernel, pointers("dy x b y") | biased, constants)
    report["gelu float64"] = compiled(kernel, pointers("dy x b y", "fp64") | biased, {**constants, "ACT": 1})
    forward, backward = pointers("x r w b y z"), pointers("dy dz z w dx dr")
    layer = pointers("mean rstd", "fp32")
    rms = pointers("rstd", "fp32")
    sums = pointers("dw db", "fp32")
    report["norm"] = compiled(norm.norm_kernel, forward | layer | FLAT, ONE_ROW)
    report["norm backward"] = compiled(norm.norm_backward_kernel, backward | layer | sums | FLAT, ONE_ROW)
    report["rms"] = compiled(norm.norm_kernel, pointers("x r w y z") | rms | OUTER, ROWS)
    report["rms backward"] = compiled(
        norm.norm_backward_kernel, backward | rms | pointers("dw", "fp32") | OUTER, {**ROWS, "INNER": SHARED}
    )
    for name, kernel in attention.KERNELS.items():
        report[f"attention, {name}"] = attended(name, kernel, 64, {})
    given = {"mask": "*u8", "gather": "*i64", "key": "*i64", "step": "*i64"}
    report["attention, float32"] = attended("forward", attention.forward_kernel, 16, given, "fp32")
    print(json.dumps({"kernels": report, "variants": variants(), "variants of a tuple": variants_of_a_tuple()}))


if __name__ == "__main__":
    main()
