"""The job `robustness_evaluation`: how much of its accuracy a trained classifier keeps under attack."""
