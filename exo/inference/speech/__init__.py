"""What a model's text says: what it thinks, what it tells the user, and whom it calls."""
