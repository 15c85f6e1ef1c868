"""What the figures show: an idea, computed by the code that it explains, or what runs have reached."""
