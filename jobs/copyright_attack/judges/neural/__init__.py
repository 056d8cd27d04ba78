"""A neural fingerprint as a judge: its network, how it is trained, how points are compared."""
