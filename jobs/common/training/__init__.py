"""Training that several studies share: optimizers, rates, precision, ranks, the loop."""
