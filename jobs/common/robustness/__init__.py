"""How robust a trained network is: the cells of an attack on a slice of the images, and what comes out of them all."""
