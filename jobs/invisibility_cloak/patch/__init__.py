"""How a patch is drawn on boxes, what it is optimised for, and the search for it."""
