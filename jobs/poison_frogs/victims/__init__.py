"""Who learns from the poisoned set, and what becomes of the targets."""
