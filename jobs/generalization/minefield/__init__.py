"""Bad minima around the path of a good training: one from each of its states, and a map of all of them."""
