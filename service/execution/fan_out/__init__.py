"""Many small independent cells: how they are handed out, computed, shared with and kept."""
