"""The network: activation, shift, width, signs, weights of points."""
