"""The playground at / and the documentation at /docs; their files are in static/."""
