"""One's own data, from files, data sets on disk, scikit-learn, or code: `load` takes what `--data` takes."""

from .door import load as load
