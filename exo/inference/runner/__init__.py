"""The process that computes one shard, and how the daemon starts, speaks to and watches it."""
