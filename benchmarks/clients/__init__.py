"""One program a client: it calls SayHello, so many at once, and prints what one cost it, as JSON."""
