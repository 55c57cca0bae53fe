"""The console that everything with colours and bars is printed on."""

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment

from ..visible import Visible, visible


class SafeConsole(Console):
    """A console whose colours and movements are its own: control characters in what it prints are shown as escapes."""

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """The segments of what is printed; those that control the terminal are rich's."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def console() -> SafeConsole:
    """The console on standard output."""
    stream = sys.stdout
    return SafeConsole(file=stream.stream if isinstance(stream, Visible) else stream, markup=False, highlight=False)
