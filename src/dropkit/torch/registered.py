"""The operator `dropkit::dropout`, for whatever traces instead of running: compilers, exporters, fake tensors, modes.

Eager tensors take a shorter way (`ops.py`). This one costs a trip through torch's dispatcher; in exchange a compiler
sees one node with a shape function and a derivative, whose only saved tensors are the key and p.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..layout import Layout
from ..mask import threshold
from . import cpu, cuda, formula

LIBRARY = torch.library.Library("dropkit", "DEF")
LIBRARY.define(
    "dropout(Tensor x, Tensor p, Tensor key, SymInt[] noise, SymInt base, Tensor? rows) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def dropout(x: torch.Tensor, p: torch.Tensor, key: torch.Tensor, place: Layout) -> torch.Tensor:
    """Dropout as one node.

    Args:
        x: floating tensor.
        p: drop probability, floating tensor, 0-dim or one that broadcasts to x.
        key: two words, int64.
        place: where x lies in the whole.
    """
    return torch.ops.dropkit.dropout(x, p, key, place.strides, place.base, place.rows)


def _place(x: torch.Tensor, noise: Sequence[int], base: int, rows: torch.Tensor | None) -> Layout:
    shape = tuple(size if step else 1 for size, step in zip(x.shape, noise, strict=True))
    return Layout(shape, tuple(noise), base, rows)


def _on_cpu(
    x: torch.Tensor, p: torch.Tensor, key: torch.Tensor, noise: Sequence[int], base: int, rows: torch.Tensor | None
) -> torch.Tensor:
    rate = threshold(p.item()) if p.dim() == 0 else p
    words: Any = tuple(key.tolist())
    place = _place(x, noise, base, rows)
    if cpu.usable(x):
        return cpu.scale_kept(x, words, rate, place)
    return _dense(x, formula.scale_kept(x, words, rate, place))


def _on_cuda(
    x: torch.Tensor, p: torch.Tensor, key: torch.Tensor, noise: Sequence[int], base: int, rows: torch.Tensor | None
) -> torch.Tensor:
    if not cuda.usable(x):
        return _anywhere(x, p, key, noise, base, rows)
    return cuda.scale_kept(x, key.to(x.device), p, _place(x, noise, base, rows))


def _anywhere(
    x: torch.Tensor, p: torch.Tensor, key: torch.Tensor, noise: Sequence[int], base: int, rows: torch.Tensor | None
) -> torch.Tensor:
    # key and p stay on their device: asking for their values would wait for it
    words: Any = key.to(x.device).unbind()
    return _dense(x, formula.scale_kept(x, words, p, _place(x, noise, base, rows)))


def _dense(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """y in the strides that the shape function promises."""
    like = torch.empty_like(x)
    return y if y.stride() == like.stride() else like.copy_(y)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    _, p, key, ctx.noise, ctx.base, rows = inputs
    ctx.save_for_backward(p, key, rows)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    p, key, rows = ctx.saved_tensors
    return torch.ops.dropkit.dropout(grad, p, key, ctx.noise, ctx.base, rows), None, None, None, None, None


LIBRARY.impl("dropout", _on_cpu, "CPU")
LIBRARY.impl("dropout", _on_cuda, "CUDA")
LIBRARY.impl("dropout", _anywhere, "CompositeExplicitAutograd")
torch.library.register_fake("dropkit::dropout", lambda x, *rest: torch.empty_like(x), lib=LIBRARY)
torch.library.register_autograd("dropkit::dropout", _backward, setup_context=_setup, lib=LIBRARY)
