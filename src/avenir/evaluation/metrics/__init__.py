"""Numbers of frames and of sets of them, and how sure they are. Knows no world and no data."""
