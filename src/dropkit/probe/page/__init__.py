"""An explanation as one HTML page: the network drawn, and how far each dropout reaches."""

from .network import render_network as render_network
