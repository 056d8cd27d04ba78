"""The job service: specs, runs, sweeps and stores. It knows Ray and knows no science."""
