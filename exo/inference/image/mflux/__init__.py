"""The image engine that computes with mflux's models.

engine    the engine: what the runner speaks to
picture   the loop: one denoising step after the other
schedule  the noise of each step, and what is left of it
family    what a family's adapter does; `flux`, `flux2`, `qwen` and `z_image` are the adapters
words     prompts that are too long
split     some of a transformer's blocks here, the others elsewhere
patches   some of a picture's rows, as tokens and as latents
stale     keys and values that blocks had last, for looks at patches
pipeline  several patches on their way through the ranks at once
ranks     what the ranks of one picture tell each other
facts     what they must have in common
canvas    pictures as they come and go: PNG, pixels, masks
loading   opening a folder, and reading its weights piece by piece
"""
