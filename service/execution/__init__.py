"""What happens to a spec once it is valid: its trials, their records, checkpoints and logs, with Ray or without."""
