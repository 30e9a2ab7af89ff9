"""The check of all nodes before a run starts: one process a node, a store on the first, findings with remedies, one report."""
