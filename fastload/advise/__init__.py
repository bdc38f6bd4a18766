"""What this machine can do, what a shard directory holds, which parameters to take."""
