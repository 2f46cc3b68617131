"""`amatch bench` beside PyTorch and JAX: the workloads, the peers, the rounds and the table.

Parent process: `workloads`, `problem`, `reference`, `machine`, `programs`, `rounds`, `verify`, `report`.
Child process, one for each peer: `child`, which runs the forms that a module of `peers` lists.
"""
