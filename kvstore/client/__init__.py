"""The Python client; it never imports the server."""
