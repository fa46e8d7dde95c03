"""What `import gpu_sublinear` must not bring along: everybody waits for it."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("cupy", "matplotlib", "numba", "pandas", "scipy.optimize", "scipy.stats", "sklearn", "torch")


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, gpu_sublinear; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
