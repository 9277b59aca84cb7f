"""What keeps a list of agents, each in a process of its own that prints its port: ours, the references, a peer."""
