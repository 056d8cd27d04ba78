"""What the handle of a job is made of: artefacts as bytes, rows of metrics, trials that have ended."""
