"""What can be asked of the planner: a run, a model by its name, several cards, a table; and who answers what."""
