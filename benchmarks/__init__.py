"""How fast the service is, beside what its HTTP server could do at most."""
