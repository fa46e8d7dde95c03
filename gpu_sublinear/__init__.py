"""Train two-layer networks of enormous width by sketched Gauss-Newton steps."""
