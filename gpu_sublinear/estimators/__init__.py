"""Estimators by the rules of scikit-learn."""
