"""What `bind` names: modules that draw, by the site that they have been given."""

from typing import Any

from torch import nn

from .draw import Draw
from .drawing.coordinates import Site, draw_for


class Named(nn.Module):
    """Something that draws, and that has a name in a bound model."""

    site: Site | None = None  # set by bind

    @property
    def active(self) -> bool:
        """Whether a forward now may draw."""
        return self.training

    def fresh(self, lowered: Any) -> Draw:
        """The draw of its next call, for what is lowered."""
        return draw_for(lowered, site=self.site)
