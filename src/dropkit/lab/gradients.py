"""`dropkit.lab.engines.gradients`, under the name that the documentation had first."""

from .engines.gradients import *  # noqa: F403
