"""Intervals, tests and sequences for paired comparisons: functions of arrays, which know of no runs."""
