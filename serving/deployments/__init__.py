"""The deployments of Serve: the replicas that answer and those that attack, their models, batches and statistics."""
