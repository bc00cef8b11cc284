"""Theory and simulation held together: hypothesis checks and the studies behind the project's claims."""
