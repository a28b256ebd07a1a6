"""A convolutional network as a graph of layers and groups of channels."""
