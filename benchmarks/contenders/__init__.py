"""The loaders that are compared: one module each, all under the contract of `contract.py`."""
