"""From YAML and overrides to a list of trials: reading, validation, description."""
