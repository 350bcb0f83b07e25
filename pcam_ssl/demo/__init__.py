"""`pcam-ssl demo`: the main job in minutes, on synthetic slides or on a sample of your own patches."""
