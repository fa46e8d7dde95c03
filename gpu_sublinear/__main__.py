"""``python -m gpu_sublinear`` is the program ``gpu-sublinear``."""

import sys

from .app.cli import main

sys.exit(main())
