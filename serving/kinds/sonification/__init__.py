"""The action "sonify" of networks that listen: what a request takes, what is computed, and answers as files."""
