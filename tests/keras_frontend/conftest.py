"""Keras has one backend for a process, so the suite runs in a process for each; see test_backends.py."""

import os

collect_ignore_glob = [] if os.environ.get("DROPKIT_KERAS_SUITE") else ["suite/*"]
