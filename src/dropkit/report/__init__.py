"""Reports: one HTML page that opens offline, its scripts and styles inside."""

from .page import render as render
from .values import Curve as Curve
from .values import Differences as Differences
from .values import Figure as Figure
from .values import Page as Page
from .values import Picture as Picture
from .values import Whisker as Whisker
