"""Which nodes run together, and what starts, drives and watches a graph from outside."""
