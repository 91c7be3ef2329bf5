"""Pages: what was measured, to look at. Measures nothing."""
