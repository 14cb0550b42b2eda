"""Files in and out: one module per format. The world inside is RAS+ mm whatever the file says."""
