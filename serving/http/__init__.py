"""What stands between HTTP and a model: servers, keys, quotas, bounds, messages and tensors."""
