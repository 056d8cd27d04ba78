"""Loss landscapes: the loss around a trained network, along lines and over planes."""
