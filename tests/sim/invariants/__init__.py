"""The promises that the simulator holds the product to, one file each.

`ALL` has them in the order of their numbers, the oracle last. README.md says which are not here
yet, and why.
"""

from __future__ import annotations

from tests.sim.invariants.i01_one_leader_per_term import OneLeaderPerTerm
from tests.sim.invariants.i02_term_and_vote_stay import TermAndVoteStay
from tests.sim.invariants.i03_one_vote_per_term import OneVotePerTerm
from tests.sim.invariants.i04_leaders_only_append import LeadersOnlyAppend
from tests.sim.invariants.i05_commit_in_own_term import CommitInOwnTerm
from tests.sim.invariants.i06_logs_match import LogsMatch
from tests.sim.invariants.i07_leaders_are_complete import LeadersAreComplete
from tests.sim.invariants.i08_committed_for_ever import CommittedForEver
from tests.sim.invariants.i09_one_change_at_a_time import OneChangeAtATime
from tests.sim.invariants.i10_majorities_meet import MajoritiesMeet
from tests.sim.invariants.i11_commit_needs_a_quorum import CommitNeedsAQuorum
from tests.sim.invariants.i12_a_leader_stays import ALeaderStays
from tests.sim.invariants.i13_indexes_in_order import IndexesInOrder
from tests.sim.invariants.i14_never_back import NeverBack
from tests.sim.invariants.i15_snapshots_fit import SnapshotsFit
from tests.sim.invariants.i16_queues_are_bounded import QueuesAreBounded
from tests.sim.invariants.i17_promises_are_durable import PromisesAreDurable
from tests.sim.invariants.i18_reads_see_acknowledged_writes import ReadsSeeAcknowledgedWrites
from tests.sim.invariants.i19_confirmations_fit_attempts import ConfirmationsFitAttempts
from tests.sim.invariants.i20_no_clock_answers_reads import NoClockAnswersReads
from tests.sim.invariants.i21_one_revision_per_write import OneRevisionPerWrite
from tests.sim.invariants.i22_revisions_only_grow import RevisionsOnlyGrow
from tests.sim.invariants.i23_versions_count_puts import VersionsCountPuts
from tests.sim.invariants.i24_past_stays import PastStays
from tests.sim.invariants.i25_nothing_after_a_failed_write import NothingAfterAFailedWrite
from tests.sim.invariants.i26_state_is_its_entries import StateIsItsEntries
from tests.sim.invariants.i27_damage_is_never_cut_away import DamageIsNeverCutAway
from tests.sim.invariants.i28_same_on_all import SameOnAll
from tests.sim.invariants.i29_differences_raise_the_alarm import DifferencesRaiseTheAlarm
from tests.sim.invariants.i30_all_or_nothing import AllOrNothing
from tests.sim.invariants.i31_watches_go_forward import WatchesGoForward
from tests.sim.invariants.i32_no_event_twice import NoEventTwice
from tests.sim.invariants.i33_exactly_its_events import ExactlyItsEvents
from tests.sim.invariants.i34_revisions_arrive_whole import RevisionsArriveWhole
from tests.sim.invariants.i35_marks_are_true import MarksAreTrue
from tests.sim.invariants.i36_compacted_only_below import CompactedOnlyBelow
from tests.sim.invariants.i37_nothing_before_the_start import NothingBeforeTheStart
from tests.sim.invariants.i38_leases_live_out_their_time import LeasesLiveOutTheirTime
from tests.sim.invariants.i39_expiry_of_one_term import ExpiryOfOneTerm
from tests.sim.invariants.i40_revocation_is_exact import RevocationIsExact
from tests.sim.invariants.i41_fencing_tokens_grow import FencingTokensGrow
from tests.sim.invariants.i42_instances_live_out_their_time import InstancesLiveOutTheirTime
from tests.sim.invariants.i43_registry_watches_are_true import RegistryWatchesAreTrue
from tests.sim.invariants.i44_names_lead_to_the_living import NamesLeadToTheLiving
from tests.sim.invariants.i48_refused_stays_refused import RefusedStaysRefused
from tests.sim.invariants.i49_removed_means_gone import RemovedMeansGone
from tests.sim.invariants.i50_stalled_clients_are_bounded import StalledClientsAreBounded
from tests.sim.invariants.i51_guards_hold import GuardsHold
from tests.sim.invariants.i52_deregistered_stays_away import DeregisteredStaysAway
from tests.sim.invariants.i53_history_tells_the_same import HistoryTellsTheSame
from tests.sim.observer import Invariant
from tests.sim.oracle import Oracle

__all__ = ("ALL",)

ALL: tuple[type[Invariant], ...] = (
    OneLeaderPerTerm,
    TermAndVoteStay,
    OneVotePerTerm,
    LeadersOnlyAppend,
    CommitInOwnTerm,
    LogsMatch,
    LeadersAreComplete,
    CommittedForEver,
    OneChangeAtATime,
    MajoritiesMeet,
    CommitNeedsAQuorum,
    ALeaderStays,
    IndexesInOrder,
    NeverBack,
    SnapshotsFit,
    QueuesAreBounded,
    PromisesAreDurable,
    ReadsSeeAcknowledgedWrites,
    ConfirmationsFitAttempts,
    NoClockAnswersReads,
    OneRevisionPerWrite,
    RevisionsOnlyGrow,
    VersionsCountPuts,
    PastStays,
    NothingAfterAFailedWrite,
    StateIsItsEntries,
    DamageIsNeverCutAway,
    SameOnAll,
    DifferencesRaiseTheAlarm,
    AllOrNothing,
    WatchesGoForward,
    NoEventTwice,
    ExactlyItsEvents,
    RevisionsArriveWhole,
    MarksAreTrue,
    CompactedOnlyBelow,
    NothingBeforeTheStart,
    LeasesLiveOutTheirTime,
    ExpiryOfOneTerm,
    RevocationIsExact,
    FencingTokensGrow,
    InstancesLiveOutTheirTime,
    RegistryWatchesAreTrue,
    NamesLeadToTheLiving,
    RefusedStaysRefused,
    RemovedMeansGone,
    StalledClientsAreBounded,
    GuardsHold,
    DeregisteredStaysAway,
    HistoryTellsTheSame,
    Oracle,
)
