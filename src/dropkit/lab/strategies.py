"""`dropkit.lab.recipes.strategies`, under the name that the documentation had first."""

from .recipes.strategies import *  # noqa: F403
