"""Everything about HTTP: keys, quotas, bounds, messages and tensors. Nothing here knows a model."""
