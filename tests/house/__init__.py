"""The house as data and checks: `python -m tests.house [checkout]` prints what is out of place, by file and line."""
