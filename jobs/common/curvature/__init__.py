"""The Hessian of the loss by the weights: its products with vectors, eigenvalues, trace and spectral density."""
