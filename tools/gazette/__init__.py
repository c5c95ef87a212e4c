"""The generator of the bundled evaluation data set gazette; `python -m tools.gazette --out DIR --seed 7`."""
