"""Index to order, plan, bytes, pixels, batch, device: the loader."""
