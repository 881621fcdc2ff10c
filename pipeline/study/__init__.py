"""Studies: the line on a grid of models, ε and seeds, to see what size and privacy cost and buy."""
