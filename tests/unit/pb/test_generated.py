"""The generated code: what protos/ says, beside other etcd clients, and etcd's own methods."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvstore.pb import health_pb2, rpc_pb2, v3election_pb2, v3lock_pb2

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("order", [("kvstore.pb", "aetcd"), ("aetcd", "kvstore.pb")])
def test_another_etcd_client_can_live_in_the_same_process(order: tuple[str, str]) -> None:
    """In protobuf's default pool the second import fails with "duplicate symbol"."""
    if importlib.util.find_spec("aetcd") is None:
        pytest.skip("aetcd is not installed")
    modules = {"kvstore.pb": "from kvstore.pb import rpc_pb2", "aetcd": "import aetcd"}
    program = "; ".join(modules[name] for name in order)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_generated_code_is_what_the_protos_say() -> None:
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools 1.72 is not installed")
    from importlib.metadata import version

    if not version("grpcio-tools").startswith("1.72."):
        pytest.skip("another version of grpcio-tools writes other code")
    done = subprocess.run(
        [sys.executable, str(ROOT / "protos" / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


METHODS = """
etcdserverpb.KV Range RangeRequest RangeResponse
etcdserverpb.KV RangeStream RangeRequest *RangeStreamResponse
etcdserverpb.KV Put PutRequest PutResponse
etcdserverpb.KV DeleteRange DeleteRangeRequest DeleteRangeResponse
etcdserverpb.KV Txn TxnRequest TxnResponse
etcdserverpb.KV Compact CompactionRequest CompactionResponse
etcdserverpb.Watch Watch *WatchRequest *WatchResponse
etcdserverpb.Lease LeaseGrant LeaseGrantRequest LeaseGrantResponse
etcdserverpb.Lease LeaseRevoke LeaseRevokeRequest LeaseRevokeResponse
etcdserverpb.Lease LeaseKeepAlive *LeaseKeepAliveRequest *LeaseKeepAliveResponse
etcdserverpb.Lease LeaseTimeToLive LeaseTimeToLiveRequest LeaseTimeToLiveResponse
etcdserverpb.Lease LeaseLeases LeaseLeasesRequest LeaseLeasesResponse
etcdserverpb.Cluster MemberAdd MemberAddRequest MemberAddResponse
etcdserverpb.Cluster MemberRemove MemberRemoveRequest MemberRemoveResponse
etcdserverpb.Cluster MemberUpdate MemberUpdateRequest MemberUpdateResponse
etcdserverpb.Cluster MemberList MemberListRequest MemberListResponse
etcdserverpb.Cluster MemberPromote MemberPromoteRequest MemberPromoteResponse
etcdserverpb.Maintenance Alarm AlarmRequest AlarmResponse
etcdserverpb.Maintenance Status StatusRequest StatusResponse
etcdserverpb.Maintenance Defragment DefragmentRequest DefragmentResponse
etcdserverpb.Maintenance Hash HashRequest HashResponse
etcdserverpb.Maintenance HashKV HashKVRequest HashKVResponse
etcdserverpb.Maintenance Snapshot SnapshotRequest *SnapshotResponse
etcdserverpb.Maintenance MoveLeader MoveLeaderRequest MoveLeaderResponse
etcdserverpb.Maintenance Downgrade DowngradeRequest DowngradeResponse
etcdserverpb.Auth AuthEnable AuthEnableRequest AuthEnableResponse
etcdserverpb.Auth AuthDisable AuthDisableRequest AuthDisableResponse
etcdserverpb.Auth AuthStatus AuthStatusRequest AuthStatusResponse
etcdserverpb.Auth Authenticate AuthenticateRequest AuthenticateResponse
etcdserverpb.Auth UserAdd AuthUserAddRequest AuthUserAddResponse
etcdserverpb.Auth UserGet AuthUserGetRequest AuthUserGetResponse
etcdserverpb.Auth UserList AuthUserListRequest AuthUserListResponse
etcdserverpb.Auth UserDelete AuthUserDeleteRequest AuthUserDeleteResponse
etcdserverpb.Auth UserChangePassword AuthUserChangePasswordRequest AuthUserChangePasswordResponse
etcdserverpb.Auth UserGrantRole AuthUserGrantRoleRequest AuthUserGrantRoleResponse
etcdserverpb.Auth UserRevokeRole AuthUserRevokeRoleRequest AuthUserRevokeRoleResponse
etcdserverpb.Auth RoleAdd AuthRoleAddRequest AuthRoleAddResponse
etcdserverpb.Auth RoleGet AuthRoleGetRequest AuthRoleGetResponse
etcdserverpb.Auth RoleList AuthRoleListRequest AuthRoleListResponse
etcdserverpb.Auth RoleDelete AuthRoleDeleteRequest AuthRoleDeleteResponse
etcdserverpb.Auth RoleGrantPermission AuthRoleGrantPermissionRequest …
etcdserverpb.Auth RoleRevokePermission AuthRoleRevokePermissionRequest …
v3lockpb.Lock Lock LockRequest LockResponse
v3lockpb.Lock Unlock UnlockRequest UnlockResponse
v3electionpb.Election Campaign CampaignRequest CampaignResponse
v3electionpb.Election Proclaim ProclaimRequest ProclaimResponse
v3electionpb.Election Leader LeaderRequest LeaderResponse
v3electionpb.Election Observe LeaderRequest *LeaderResponse
v3electionpb.Election Resign ResignRequest ResignResponse
grpc.health.v1.Health Check HealthCheckRequest HealthCheckResponse
grpc.health.v1.Health Watch HealthCheckRequest *HealthCheckResponse
"""
"""Service, method, request, response; a star marks a stream; "…" is like the request."""


def test_descriptors_have_exactly_etcds_methods() -> None:
    described = []
    for module in (rpc_pb2, v3lock_pb2, v3election_pb2, health_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                request = "*" * method.client_streaming + method.input_type.name
                response = "*" * method.server_streaming + method.output_type.name
                described.append(f"{service.full_name} {method.name} {request} {response}")
    wanted = re.sub(r"(\w+)Request …", r"\1Request \1Response", METHODS).strip().split("\n")
    assert sorted(described) == sorted(wanted)


def test_messages_are_in_the_private_pool_only() -> None:
    program = """
from google.protobuf import descriptor_pool
from kvstore.pb import pool, rpc_pb2
assert pool.Default().FindMessageTypeByName("etcdserverpb.PutRequest")
try:
    descriptor_pool.Default().FindMessageTypeByName("etcdserverpb.PutRequest")
except KeyError:
    print("private")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "private\n", done.stderr


def test_field_numbers_that_clients_depend_on() -> None:
    """A sample of the odd ones, which a renumbering by habit would break."""
    fields: dict[tuple[Any, str], int] = {
        (rpc_pb2.Compare, "range_end"): 64,
        (rpc_pb2.WatchResponse, "events"): 11,
        (rpc_pb2.WatchResponse, "cancel_reason"): 6,
        (rpc_pb2.RangeResponse, "count"): 4,
        (rpc_pb2.HashKVResponse, "hash_revision"): 4,
        (rpc_pb2.SnapshotResponse, "version"): 4,
        (rpc_pb2.ResponseHeader, "raft_term"): 4,
        (rpc_pb2.StatusResponse, "dbSizeQuota"): 12,
    }
    for (message, name), number in fields.items():
        assert message.DESCRIPTOR.fields_by_name[name].number == number, name


def test_generated_modules_import_absolutely() -> None:
    for path in (ROOT / "kvstore" / "pb").glob("*_pb2.py"):
        assert not re.search(r"^import \w+_pb2", path.read_text(), re.M), path.name
