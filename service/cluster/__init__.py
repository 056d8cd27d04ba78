"""Ray: connecting to a cluster, trials on Tune, cells as tasks, shared training, submission."""
