"""The Hessian of the loss: its eigenvalues, and a map of them."""
