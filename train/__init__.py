"""The trainer: `python train/run.py`. It is part of the checkout and is not installed."""
