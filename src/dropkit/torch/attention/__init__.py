"""Attention whose dropout is keyed, exact and never stored."""
