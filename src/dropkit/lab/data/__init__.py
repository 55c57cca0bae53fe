"""Data sets: arrays of images and labels, read from files that nobody has to trust."""

from .sets import Data as Data
from .sets import load_data as load_data
