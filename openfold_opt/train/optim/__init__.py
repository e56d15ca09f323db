"""Update of the weights: Adam, learning rate, running average and the flat buffer."""
