"""The device for NVIDIA GPUs: CuPy and raw kernels."""
