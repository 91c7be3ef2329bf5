"""A csv as numbers in named columns, and which frame of a recording each of its rows is of.

    reading   a file becomes a table, or a sentence that says where it is none
    joining   its rows are joined to frames: by name, by unit and span, or by order

Knows nothing of video files or models.
"""

from avenir.tables.joining import Joined, has_times, join, place, recorded, signals_by_name
from avenir.tables.reading import Table, printable, read

__all__ = [
    "Joined",
    "Table",
    "has_times",
    "join",
    "place",
    "printable",
    "read",
    "recorded",
    "signals_by_name",
]
