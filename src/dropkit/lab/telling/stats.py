"""What is in `statistics`, under its former name."""

from ..statistics.interval import Interval as Interval
from ..statistics.interval import mean_interval as mean_interval
from ..statistics.interval import paired_difference as paired_difference
