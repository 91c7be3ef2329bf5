"""Training: one loop for every task; a recipe goes in, a run folder comes out."""
