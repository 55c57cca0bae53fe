"""Judgement of predictions: functions of arrays, each defined in its docstring, which know of no model."""
