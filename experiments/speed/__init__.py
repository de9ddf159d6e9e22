"""How fast the pipelines are beside their peers: `python -m experiments.speed`."""
