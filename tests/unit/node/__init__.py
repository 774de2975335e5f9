"""Tests of kvstore.node."""
