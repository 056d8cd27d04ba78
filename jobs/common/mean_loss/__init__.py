"""The mean loss of a network over a set of images: the losses, the images that a network takes, what it scores."""
