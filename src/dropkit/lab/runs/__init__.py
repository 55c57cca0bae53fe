"""One run: what a plan becomes in its folder."""
