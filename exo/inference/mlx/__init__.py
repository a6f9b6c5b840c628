"""The MLX engine. Only runner processes import it."""
