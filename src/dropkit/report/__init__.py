"""Reports: one HTML page that opens offline, its scripts and styles inside."""

from .page import render as render
from .values import Cell as Cell
from .values import Curve as Curve
from .values import Differences as Differences
from .values import Dot as Dot
from .values import Figure as Figure
from .values import Matrix as Matrix
from .values import Page as Page
from .values import Panel as Panel
from .values import Picture as Picture
from .values import Rated as Rated
from .values import Scale as Scale
from .values import Table as Table
from .values import Whisker as Whisker
