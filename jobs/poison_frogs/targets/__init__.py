"""Which images are targets and which are bases."""
