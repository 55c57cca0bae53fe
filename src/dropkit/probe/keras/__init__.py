"""The probe of Keras models."""

from .model import explain_keras as explain_keras
