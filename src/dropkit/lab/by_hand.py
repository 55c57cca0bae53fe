"""`dropkit.lab.engines.by_hand`, under the name that scripts import."""

from .engines.by_hand import score as score
from .engines.by_hand import train_epoch as train_epoch
