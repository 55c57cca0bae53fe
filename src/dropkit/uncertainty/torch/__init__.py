"""Predictions of torch models."""
