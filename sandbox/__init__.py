"""Local stand-ins for the services around the relay: for a laptop and for tests, never deployed."""
