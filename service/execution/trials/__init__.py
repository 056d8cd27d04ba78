"""How the trials of a run are carried out: one of them, all of them in this process, and which are stopped early."""
