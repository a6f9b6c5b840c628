"""Pictures: what is asked of a runner that has an image model, and the engine that draws them."""
