"""Memory of a step that was traced: what it asks of the allocator, in order, and what the allocator makes of it."""
