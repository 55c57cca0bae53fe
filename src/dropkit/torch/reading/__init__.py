"""What structure and source of a model show of its dropout, without a run: layers, numbers, calls of a forward."""
