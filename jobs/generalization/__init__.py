"""Understanding generalization through visualization: minima that generalize badly, their basins and margins."""
