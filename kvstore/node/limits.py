"""Every bound of a running member, in one place: queues, batches, slices and waits.

Nothing in this package grows without one of these numbers stopping it. Values that etcd has
are etcd's, so that the same load is refused at the same point.
"""

from __future__ import annotations

REQUEST_TIMEOUT_BASE_S = 5.0
"""A request waits this long plus two election timeouts for its outcome (etcd: 7 s by default)."""

MAX_APPLY_LAG_ENTRIES = 5_000
"""Writes are refused while this many committed entries are neither applied nor foreseen."""

MAX_FORESEEN_ENTRIES = 50_000
MAX_FORESEEN_BYTES = 64 * 1024**2
"""Entries answered before they are applied, while a long one is: about a second's worth."""

FORESIGHT_AFTER_SLICES = 2
"""A batch that needs more slices than this makes those behind it look ahead."""

LONG_BATCH_SLICES = 8
"""A batch that needs more is begun anew, as one that can be committed off the loop: until here
(4,096 keys) the commit takes about 10 ms."""

MAX_QUEUED_WRITES = 20_000
MAX_QUEUED_WRITE_BYTES = 64 * 1024**2
"""Writes that wait for a leader, or for the WAL write before theirs; more are refused."""

MAX_PENDING_WRITES = 100_000
"""Writes proposed and not yet answered."""

PROPOSE_CHUNK_BYTES = 1024**2
"""Proposals enter Raft in groups of about this size, so that a full log refuses only the rest."""

APPLY_BATCH_ENTRIES = 1_024
APPLY_BATCH_BYTES = 8 * 1024**2
"""One store transaction applies at most this much."""

APPLY_SLICE_OPERATIONS = 512
"""Key operations of one slice of an apply (about 5 ms)."""

SLOW_APPLY_S = 0.1
"""A batch that takes longer is counted as slow (etcd's figure)."""

SLICE_S = 0.005
"""After this long, work that can be split gives the loop back."""

LONG_TURN_S = 0.05
"""A loop turn longer than this is counted and logged: others waited for it."""

LARGE_ANSWER_BYTES = 1024**2
"""An answer to a range of this size or more is put together in a thread (a join lets go of the
interpreter from this size on)."""

MAX_ANSWERS_IN_THREAD_BYTES = 512 * 1024**2
"""Large answers that wait to be put together; a read that would add one beyond is refused."""

MAX_WAITING_READS = 50_000
"""Linearizable reads that wait for confirmation, and reads that wait for a free view."""

MAX_PINNED_VIEWS = 24
"""Reads that hold a store transaction across loop turns."""

READ_PIN_LIMIT_S = 30.0
"""A read that runs longer is abandoned: its pinned view makes the store file grow."""

READ_RETRY_S = 0.5
"""A ReadIndex round that was not answered is asked again, with a new id, after this long."""

MAX_RAFT_LOG_BYTES = 256 * 1024**2
"""Applied entries kept in memory for slow followers; beyond this they get a snapshot."""

LEASE_EXPIRIES_PER_S = 1_000
LEASE_EXPIRY_RETRY_S = 7.0
"""A proposed expiry that was not applied by then is proposed again."""
MAX_LEASE_BATCH = 500
"""Leases named by one expiry entry, and keep-alives carried by one call to the leader."""

LEASE_HOLD_CHECK_S = 1.0
"""How often a lease whose end is held back is looked at again."""
MAX_LEASES_LOOKED_AT = 5_000
"""Leases whose deadline is looked at in one tick (about 2 µs each)."""
MAX_RENEWALS_PER_CALL = 10_000
"""Leases renewed by one call of `Node.renew_leases`, and by one question to the leader."""

LEASE_FORWARD_PAUSE_S = 0.05
"""Pause between two attempts to reach the leader with a keep-alive."""

HEALTHY_CONNECTION_S = 5.0
"""How long a member must have been connected to count in a membership check."""

LEARNER_READY_PERCENT = 90
"""A learner may be promoted when its log reaches this share of the leader's."""

CONF_CHANGE_RETRY_S = 0.05
"""Pause before a membership change that Raft refused for now is offered again."""

SNAPSHOT_MIN_WAL_BYTES = 64 * 1024**2
"""No periodic snapshot before the WAL grew by this much since the last one."""
SNAPSHOT_FILES_KEPT = 2

SNAPSHOT_CHECK_S = 1.0
"""How often the rule for periodic snapshots is looked at."""

SNAPSHOT_SEND_RETRY_S = 1.0
"""Pause before a follower whose snapshot could not be made or sent is tried again."""

SNAPSHOT_STREAM_ALIGNMENT = 512
"""etcd's clients accept a backup only when its size, without the hash, is a multiple of this."""

MIN_FREE_DISK_BYTES = 256 * 1024**2
"""Below this the NOSPACE alarm is raised, before the store itself can fail."""
DISK_CHECK_S = 5.0

PUBLISH_RETRY_S = 1.0
"""Pause before a member offers its name and client URLs to the cluster again."""

VERSION_CHECK_S = 4.0
"""How often the leader looks whether the cluster version is decided."""

REVISION_COMPACTION_CHECK_S = 300.0
"""How often auto-compaction in revision mode looks at the revision."""

MAX_STREAM_CHUNK_KEYS = 10_000
FIRST_STREAM_CHUNK_KEYS = 10
"""Keys of one chunk of a streamed range."""

PEER_CALL_TIMEOUT_S = 5.0
STOP_TRANSFER_S = 2.0
"""How long a stopping leader waits for a successor."""

JOIN_TIMEOUT_S = 10.0
JOIN_ATTEMPT_PAUSE_S = 0.3
"""How long, and how often, a member that joins asks for somebody of its cluster."""

LOOK_FOR_CLUSTER_S = 0.5
"""How long a founding member looks whether its cluster is running already."""

SWEEP_SLICE_REVISIONS = 100
"""Revisions that one slice of the background sweep goes through (2 to 5 ms)."""

REMOVAL_CHECK_ELECTIONS = 5
"""Election timeouts without a leader after which a member asks whether it was removed."""
