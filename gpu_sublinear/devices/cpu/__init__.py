"""The device for processors: Numba."""
