"""Fits in threads of Python and in forks of the process: they end with the same bytes and leave things as they were."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numba
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from gpu_sublinear import GaussNewton, ShiftedReluNetwork
from gpu_sublinear.devices import get_device
from gpu_sublinear.devices.host import one_blas_thread
from tests.helpers.problems import sphere

SECONDS = 240  # until a process counts as hung; compiling everything anew takes a minute on a slow machine
FIT = """
    import numpy as np
    from gpu_sublinear import GaussNewton, ShiftedReluNetwork, get_device

    def fit(seed, **options):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((40, 5))
        X /= np.linalg.norm(X, axis=1, keepdims=True)
        network = ShiftedReluNetwork.initialize(256, 5, shift=0.5, seed=seed, device=get_device("cpu"))
        GaussNewton(max_steps=3, **options).fit(network, X, np.sin(3 * X[:, 0]))
        return network.W.tobytes()
"""
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks of a process with threads are Linux's")


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def run(code: str, **environment: str) -> str:
    """Run a program in a process of its own; return what it said, and fail if it hangs or crashes."""
    program = textwrap.dedent(FIT) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def fitted(seed: int) -> bytes:
    X, y = sphere(300, 5, seed)
    network = ShiftedReluNetwork.initialize(512, 5, shift=0.5, seed=seed, device=get_device("cpu"))
    GaussNewton(max_steps=3, alpha=0.1).fit(network, X, y)
    return network.W.tobytes()


def test_who_leaves_first_does_not_give_the_others_threads_nor_take_them_for_good():
    before, first, second = blas_threads(), one_blas_thread(), one_blas_thread()
    first.__enter__()
    second.__enter__()
    assert set(blas_threads()) == {1}
    first.__exit__(None, None, None)
    assert set(blas_threads()) == {1}
    second.__exit__(None, None, None)
    assert blas_threads() == before


def test_a_failure_inside_gives_the_threads_back():
    before = blas_threads()
    with pytest.raises(KeyError), one_blas_thread():
        raise KeyError
    assert blas_threads() == before


def test_fits_in_threads_give_the_same_bytes_and_leave_all_threads():
    before, numbas, seeds = blas_threads(), numba.get_num_threads(), range(6)
    one_by_one = [fitted(seed) for seed in seeds]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(fitted, seeds)) == one_by_one
    assert blas_threads() == before
    assert numba.get_num_threads() == numbas


@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_fits_in_threads_work_on_every_layer(layer):
    said = run(
        """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(fit, range(6)))
        import numba
        print(numba.threading_layer(), found == [fit(seed) for seed in range(6)])
        """,
        NUMBA_THREADING_LAYER=layer,
    )
    assert said.split() == [layer, "True"]


@linux
@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_a_pool_of_forks_after_a_fit_works_and_gives_the_same_bytes(layer):
    said = run(
        """
        import multiprocessing
        here = [fit(seed) for seed in range(3)]
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map_async(fit, range(3)).get(timeout=200) == here)
        print(fit(1) == here[1])
        """,
        NUMBA_THREADING_LAYER=layer,
    )
    assert said.split() == ["True", "True"]


@linux
def test_processes_of_joblib_work_after_a_fit():
    said = run(
        """
        from joblib import Parallel, delayed
        here = [fit(seed) for seed in range(2)]
        there = Parallel(n_jobs=2, backend="multiprocessing", timeout=200)(delayed(fit)(seed) for seed in range(2))
        print(there == here)
        """
    )
    assert said.strip() == "True"


@linux
def test_a_fork_in_the_middle_of_a_fit_has_its_blas_threads():
    with threadpool_limits(2, user_api="blas"):  # as many as there were, whatever the workers of the suite have
        before = blas_threads()
        with one_blas_thread():
            pid = os.fork()
            if pid == 0:  # in the child nobody is inside
                with one_blas_thread():
                    pass
                os._exit(int(blas_threads() != before))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 and before != [1] * len(before)
