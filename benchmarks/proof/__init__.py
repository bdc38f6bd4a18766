"""The proof of the GPU side: `scripts/gpu`. A table of parts, each a process with a time limit."""
