"""dropkit for PyTorch: a drop-in `Dropout`, a `dropout` function without traps, and models whose masks are keyed."""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:  # pragma: no cover
    raise ModuleNotFoundError('dropkit.torch needs PyTorch: pip install "dropkit[torch]"', name="torch") from error

from . import functional as functional
from .coordinates import at as at
from .fused import bias_act_dropout as bias_act_dropout
from .fused import dropout_add as dropout_add
from .layers import Dropout as Dropout
from .norm import dropout_add_norm as dropout_add_norm
from .ops import dropout as dropout
from .sites import bind as bind
from .sites import unbind as unbind
