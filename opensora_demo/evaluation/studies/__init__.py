"""The measurements, one a module: a result, how it is had, and what a card says of it."""
