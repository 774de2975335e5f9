"""Stores of other kinds beside ours: ZooKeeper and PySyncObj, where they have the operation."""
