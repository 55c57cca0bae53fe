"""What pytest must not import where it cannot: Triton's kernels need Triton, which exists for Linux alone."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["src/dropkit/kernels/triton/*"]
