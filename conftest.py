"""What pytest must not import where it cannot.

Triton's kernels need Triton, which exists for Linux alone. Keras has one backend for a process: what needs it runs in
processes of their own, which `tests/keras_frontend/test_backends.py` starts.
"""

import importlib.util
import os

collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["src/dropkit/kernels/triton/*"]
if not os.environ.get("DROPKIT_KERAS_SUITE"):
    collect_ignore_glob += ["src/dropkit/keras/*", "src/dropkit/probe/keras/*"]
