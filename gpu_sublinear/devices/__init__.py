"""The three devices that run the method: reference (NumPy), cpu (Numba) and cuda (CuPy)."""
