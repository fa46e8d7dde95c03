"""What finds the fired pairs: one kind of index a file, its mask and its Jacobian beside it."""
