"""Reports: one HTML page that opens offline, its scripts and styles inside."""

from .page import Curve as Curve
from .page import Differences as Differences
from .page import Figure as Figure
from .page import Page as Page
from .page import Picture as Picture
from .page import Whisker as Whisker
from .page import render as render
