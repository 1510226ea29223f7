"""How a run is trained: the recipe, the loop, the folder that it writes."""
