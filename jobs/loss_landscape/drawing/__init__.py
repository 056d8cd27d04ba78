"""What the figures of landscapes share: what is drawn, its scale, and its parts."""
