"""A page on this machine on which to try a network: drop an image, see what it says of it."""
