"""Noise: the law of a dropout, what becomes of an element.

Hard laws keep or drop, by the mask; soft ones have a number for each element; relaxed ones are soft stand-ins of a
mask. Every law states its mean: `law.mean(q)` is (u, v) of E[y] = u x + v o.
"""

from .hard import ALPHA_PRIME as ALPHA_PRIME
from .hard import Alpha as Alpha
from .hard import Bernoulli as Bernoulli
from .hard import Fill as Fill
from .hard import Mixout as Mixout
from .hard import Raw as Raw
from .hard import Shakeout as Shakeout
from .hard import Zoneout as Zoneout
from .hard import alpha_factors as alpha_factors
from .law import Hard as Hard
from .law import Noise as Noise
from .law import Numbers as Numbers
from .law import Plain as Plain
from .law import Soft as Soft
from .relaxed import Concrete as Concrete
from .relaxed import HardConcrete as HardConcrete
from .soft import AdditiveGaussian as AdditiveGaussian
from .soft import AdditiveUniform as AdditiveUniform
from .soft import Gaussian as Gaussian
from .soft import LogNormal as LogNormal
from .soft import Uniform as Uniform
