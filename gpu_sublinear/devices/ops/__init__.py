"""The op list, one family of operations a file: what :class:`gpu_sublinear.devices.Device` must be able to do."""
