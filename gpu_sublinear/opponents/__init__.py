"""Dense Gauss-Newton, to compare with."""
