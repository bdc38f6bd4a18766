"""What is on disk: manifest and index, tars, the bytes of samples."""
