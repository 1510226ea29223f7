"""Models as data: specifications, the catalogue, what builds, loads and exports them."""
