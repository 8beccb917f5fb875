"""Local emulation: the relay, and a strict stand-in for Discord's webhook API."""
