"""Images with boxes around what is seen, by name."""
