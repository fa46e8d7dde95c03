"""Before NumPy is imported: workers share the cores, and a pool of BLAS threads in each spins in the way of the other.

How many threads there are changes no byte; ``test_same_bytes_for_any_number_of_threads`` chooses their number itself.
"""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
