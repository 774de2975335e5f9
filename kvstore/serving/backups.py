"""What the command line does with backups offline; the work is `kvstore.node.restore`'s."""

from kvstore.node.restore import RestoreError, Restored, SnapshotStatus, restore, snapshot_status

__all__ = ("RestoreError", "Restored", "SnapshotStatus", "restore", "snapshot_status")
