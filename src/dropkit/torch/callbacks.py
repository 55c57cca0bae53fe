"""The public path of `moving.callbacks`."""

from .moving.callbacks import huggingface_callback as huggingface_callback
from .moving.callbacks import lightning_callback as lightning_callback
