"""Sound: files read within bounds, rates, loudness, log-mel spectrograms, networks that listen."""
