"""Networks that several studies use: architectures, parameters, references to the model store, weights, graphs."""
