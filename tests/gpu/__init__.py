"""What only a GPU can show: equal results, speed against its bounds, memory. `make gpu-check` runs all of it."""
