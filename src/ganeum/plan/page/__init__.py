"""What was planned as people read it: pages, tables and derivations."""
