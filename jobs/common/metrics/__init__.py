"""How well a network does: shares with their intervals, and segmentation from a matrix of counts."""
