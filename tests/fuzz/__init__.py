"""Fuzzing of everything that reads a file: model files and tables.  ``python -m tests.fuzz --count 100000``."""
