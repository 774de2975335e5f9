"""What the invariants share: histories and readings, kept once for all of them."""
