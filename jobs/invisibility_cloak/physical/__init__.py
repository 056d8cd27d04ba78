"""From the screen to paper and back: the sheet to print, what a print does to colours, what photographs show."""
