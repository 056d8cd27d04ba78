"""The page of a run: what it holds, and how that is drawn."""
