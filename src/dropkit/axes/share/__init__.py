"""Share: who shares a draw, so what is dropped together.

`Axes` says it before anything is drawn; a `Refining` share draws for every element and makes the mask of these draws.
"""

from .base import Axes as Axes
from .base import Refining as Refining
from .base import Share as Share
from .base import Sharing as Sharing
from .base import Uniform as Uniform
from .base import distinct_axes as distinct_axes
from .base import placed_axes as placed_axes
from .base import share_of as share_of
from .names import axes_named as axes_named
from .refining.antithetic import Antithetic as Antithetic
from .refining.block import Block as Block
from .refining.block import block_rates as block_rates
from .refining.exactly import Exactly as Exactly
from .refining.exactly import nearest as nearest
from .refining.exclusive import Exclusive as Exclusive
from .refining.prefix import Prefix as Prefix
