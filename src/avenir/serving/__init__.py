"""Playing in a browser: `player.py` knows no network, `app.py` serves it to pages in `static/`."""
