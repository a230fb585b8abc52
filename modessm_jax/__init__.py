"""Train, evaluate and run speech brain-computer interface decoders in JAX."""
