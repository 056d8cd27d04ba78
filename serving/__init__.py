"""The endpoints: models of the store behind Ray Serve, over the Open Inference Protocol v2."""
