"""pytest on the package whose extension was built with sanitizers: `make test-sanitize`."""

import os
import sys

if __name__ == "__main__":
    built = os.environ["SANITIZED"]
    # An editable install answers imports before the path does; here the copy must be found instead.
    sys.meta_path[:] = [finder for finder in sys.meta_path if "ScikitBuild" not in type(finder).__name__]
    sys.path.insert(0, f"{built}/package")

    import pytest

    from dropkit.kernels import cpu

    assert built in cpu.extension().__file__, cpu.extension().__file__
    sys.exit(pytest.main(sys.argv[1:]))
