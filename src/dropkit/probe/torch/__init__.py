"""The probe of torch models."""

from .model import explain_torch as explain_torch
