"""What this device is and can do: memory, FLOP/s, memory bandwidth.

`profile` has the types, `measure` is what the daemon calls, `memory` tells the free memory now.
Only the child process (`probe`, with `benchmark`) imports MLX.
"""
