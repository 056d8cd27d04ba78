"""Ceilings of robust accuracy for the data of a run: by the bounds, by concentration; and the alarm above one."""
