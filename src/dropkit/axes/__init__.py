"""The four axes of a dropout, as frozen framework-free values: noise x share x rate x when.

Each file is one axis and none imports another; `dropkit.Drop` is their product.
"""

from . import noise as noise
from . import rate as rate
from . import share as share
from . import when as when
