"""Charts, pages and text; knows no run."""
