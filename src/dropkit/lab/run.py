"""`dropkit.lab.runs.run`, under the name that scripts import before TensorFlow."""

from .runs.run import *  # noqa: F403
