"""What is asked over the network, with the standard library alone."""
