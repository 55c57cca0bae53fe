"""dropkit for JAX: dropout as a function whose mask JAX's transformations, devices and meshes do not change."""

try:
    import jax as _jax  # noqa: F401
except ModuleNotFoundError as error:  # pragma: no cover
    raise ModuleNotFoundError('dropkit.jax needs JAX: pip install "dropkit[jax]"', name="jax") from error

from .attention import attention as attention
from .attention import attention_mask_block as attention_mask_block
from .binding import at as at
from .binding import bind as bind
from .binding import sites as sites
from .keys import KeyWords as KeyWords
from .keys import key as key
from .ops import dropout as dropout
from .ops import normal as normal
from .ops import uniform as uniform
from .passes import passes as passes
from .surgery import insert as insert
from .surgery import set_rate as set_rate
from .surgery import swap as swap
