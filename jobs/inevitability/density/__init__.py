"""Estimates of the peak of the density of a class, to be put side by side: each is a `DensityEstimate` of its own kind.

images: float64 (count, n) of one class, pixels in [0, 1]. `log_density` goes into a bound with n = `dimension`.

| module     | faces |
| estimate   | DensityEstimate: method, kind, log_density, dimension, reach, setting, notes |
| neighbours | nearest_neighbours(images, k): estimate |
| gaussian   | gaussian(images, step, shrinkage): estimate |
| quantised  | quantised(images, levels): an estimate and an upper bound at 95 % |
| noise      | noise_expanded(n, amplitude): upper bound, of the images with noise |
| likelihood | from_likelihood(bits, n), gaussian_likelihood(images, seed): lower bounds |
"""
