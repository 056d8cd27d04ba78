"""A task for which the theorem on the sphere holds exactly, and says much: two concentric spheres to be told apart."""
