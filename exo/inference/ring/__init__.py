"""The ring: what carries steps and activations from rank to rank, and tokens back to rank 0."""
