"""One process per contender: none shares memory, threads or an environment with another. They speak JSON lines."""
