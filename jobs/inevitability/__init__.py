"""Are adversarial examples inevitable? Ceilings of robust accuracy, and how near to them networks come."""
