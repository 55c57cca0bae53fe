"""Rate: the drop probability, and how it moves.

A schedule's `at(step)` is a pure function of the step, so a resumed run needs no state: `shapes` are the plain ones,
`published` those of papers, `depth` spreads a rate over layers, and every schedule has `then`, `clip` and `scale`. A
controller (`Gap`) moves with what is measured and has a state. Steps are whatever the caller counts from 0, usually
optimizer steps.

>>> from dropkit.axes.rate import Constant, Cosine, Warmup
>>> rate = Warmup(0.5, steps=100).then(Cosine(0.5, 0.1, steps=900), at=100)
>>> [round(rate.at(step), 3) for step in (0, 50, 100, 550, 1000)]
[0.0, 0.25, 0.5, 0.3, 0.1]
"""

from .control import Gap as Gap
from .control import controllers as controllers
from .depth import exponential_in_depth as exponential_in_depth
from .depth import linear_in_depth as linear_in_depth
from .depth import linspace_in_depth as linspace_in_depth
from .depth import uniform_in_depth as uniform_in_depth
from .published import Annealed as Annealed
from .published import AntiCurriculum as AntiCurriculum
from .published import Curriculum as Curriculum
from .published import Early as Early
from .published import ExpM4t as ExpM4t
from .published import FlatCos as FlatCos
from .published import Late as Late
from .published import LayerSkip as LayerSkip
from .published import ProgressiveLayerDrop as ProgressiveLayerDrop
from .schedule import Clip as Clip
from .schedule import Constant as Constant
from .schedule import From as From
from .schedule import Rate as Rate
from .schedule import Scale as Scale
from .schedule import Schedule as Schedule
from .schedule import Then as Then
from .schedule import as_rate as as_rate
from .schedule import probability as probability
from .shapes import Cosine as Cosine
from .shapes import Cyclic as Cyclic
from .shapes import Exponential as Exponential
from .shapes import Linear as Linear
from .shapes import Piecewise as Piecewise
from .shapes import Step as Step
from .shapes import VShape as VShape
from .shapes import Warmup as Warmup
