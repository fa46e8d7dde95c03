"""Many trainings from one look: penalties, folds, targets."""
