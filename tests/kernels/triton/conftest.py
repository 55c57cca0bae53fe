"""What lies here runs in processes of its own, started by ../test_triton.py."""

import os

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["*.py"]
