"""The kvstore command."""
