"""Images that a generator makes of Gaussian noise: those that the theorem of Fawzi et al. 2018 is about."""
