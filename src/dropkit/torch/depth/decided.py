"""What is kept, known on the host before anything runs: a mask is a pure function, so no device is asked for it.

The bits are those of `dropkit.keep`. Eager and compiled models, one process and several, all decide alike.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...drop import Lowered
from ...errors import DropkitRuntimeError
from ...mask import WORD, keep_words, known_place
from ...place import WHOLE, Part
from ...threshold import ONE
from ..draw import Draw
from ..layers import Drawn

_FEW = 8  # words that are faster in Python's integers than in arrays


def drawn(module: Drawn, laws: Sequence[Lowered | None]) -> Draw:
    """The draw of one call for several laws; none is taken where their rates leave nothing to chance."""
    if all(law is None or law.t == 0 for law in laws):
        return Draw((0, 0), tuple(laws), WHOLE)
    return module.fresh(tuple(laws))


def kept(draw: Draw, law: Lowered | None, index: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of these elements a law keeps, by their global indices."""
    t = ONE if law is None else law.t
    if t in (0, ONE):
        return np.full(index.shape, t == ONE)
    words, where = np.unique(index // np.uint64(WORD), return_inverse=True)
    key = host_words(draw)
    if words.size > _FEW:
        packed = keep_words(words, t, key)
    else:
        packed = np.array([keep_words(int(word), t, key) for word in words], np.uint64)
    return (packed[where.reshape(index.shape)] >> (index % np.uint64(WORD)) & np.uint64(1)).astype(np.bool_)


def rows_of(x: torch.Tensor, part: Part) -> NDArray[np.uint64]:
    """The number in the whole of each row of a tensor."""
    rows = part.rows
    if rows is not None:
        part = part._replace(rows=rows.cpu().numpy())
    place = known_place(tuple(x.shape), tuple(range(1, x.dim())), part)
    if place.rows is not None:
        return place.rows.astype(np.uint64)
    return np.uint64(place.base) + np.arange(len(x), dtype=np.uint64) * np.uint64(place.strides[0])


def host_words(draw: Draw) -> Any:
    """The two words of a key, as Python's integers.

    Raises:
        DropkitRuntimeError: only a device will know them.
    """
    key = draw.key
    if isinstance(key, torch.Tensor) and key.dim() == 1 and not torch._C._functorch.is_functorch_wrapped_tensor(key):
        key = tuple(key.tolist())
    if type(key) is not tuple or min(key) < 0:
        raise DropkitRuntimeError(
            "which layers run is decided on the host, but here only the device knows the step: a CUDA graph would "
            "replay one decision for ever, and models stacked for vmap would need several at once; capture or stack "
            "the model inside dropkit.torch.disabled(model), or with p = 0"
        )
    return key
