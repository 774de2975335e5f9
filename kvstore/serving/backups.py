"""What the command line does with backups offline; the work is `kvstore.node.restore`'s."""

from kvstore.node.restore import Restored, RestoreError, SnapshotStatus, restore, snapshot_status

__all__ = ("RestoreError", "Restored", "SnapshotStatus", "restore", "snapshot_status")
