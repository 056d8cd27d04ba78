"""How minima that generalize badly are reached: the objective, the images that it takes, the training."""
