"""What a model does, taken apart: numbers read from the loaded network and codec while they work."""
